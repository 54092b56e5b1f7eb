"""Row selection by loops, and the max-min policy as its authors compute it."""

from __future__ import annotations


def places(values):
    """Share of the rows that lie below a value, equal values at the middle of their run."""
    result = []
    for value in values:
        below = sum(other < value for other in values)
        equal = sum(other == value for other in values)
        result.append((below + (equal - 1) / 2) / max(1, len(values) - 1))
    return result


def band(rows, student, share, centre, teacher=None):
    place = places(student)
    candidates = [
        k for k in range(len(rows)) if teacher is None or (teacher[k] >= 0 and teacher[k] < student[k])
    ]
    candidates.sort(key=lambda k: abs(place[k] - centre))  # sorting keeps the order of equals
    return sorted(rows[k] for k in candidates[: round(share * len(rows))])


def max_min(count, effective, similar, exponent):
    gains = [float(k) ** -exponent for k in range(1, count + 1)]
    best, last = None, 0
    above = below = 0.0
    weights = []
    for k, gain in enumerate(gains):
        easy = k >= int(count * (1 - effective))
        value = gain if easy else gain / 2
        above += value / (value + gain / 2)
        below += 1 / (value + gain / 2)
        weights.append(1 / (value + gain / 2))
        worth = (above + count * (effective + similar - 1)) / below
        if best is None or worth > best:
            best, last = worth, k
    kept = [weight if k <= last else 0.0 for k, weight in enumerate(weights)]
    return [weight / sum(kept) for weight in kept]


def guaranteed_gain(policy, effective, similar, exponent):
    """The smallest gain of a policy over all ways to deal the answers: by brute force over the rows."""
    from itertools import permutations

    count = len(policy)
    wrong = round(count * (1 - effective - similar))
    right = round(count * effective)
    kinds = ["wrong"] * wrong + ["right"] * right + ["same"] * (count - wrong - right)
    worst = None
    for dealt in set(permutations(kinds)):
        total = 0.0
        for k, kind in enumerate(dealt):
            gain = float(k + 1) ** -exponent
            total += policy[k] * {"wrong": -gain / 2, "same": gain / 2, "right": gain}[kind]
        worst = total if worst is None else min(worst, total)
    return worst
