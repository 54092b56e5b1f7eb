"""Tables 2 and 3 of DLLM2Rec, counted row by row."""


def table2(first, second):
    better = sum(a < b for a, b in zip(first, second, strict=True))
    worse = sum(a > b for a, b in zip(first, second, strict=True))
    return better, worse


def table3(first, second, targets):
    counts = {"shared": [0, 0], "first_only": [0, 0], "second_only": [0, 0]}
    for one, two, target in zip(first, second, targets, strict=True):
        one, two = set(one) - {-1}, set(two) - {-1}
        for name, items in (("shared", one & two), ("first_only", one - two), ("second_only", two - one)):
            counts[name][0] += len(items)
            counts[name][1] += target in items
    return counts
