"""The losses once more, row by row in plain Python floats, straight from the papers' formulas."""

import math


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce_terms(positive, negatives):
    """The terms of DLLM2Rec's eq. 3 for one row."""
    return [-math.log(_sigmoid(positive)), *(-math.log(1 - _sigmoid(f)) for f in negatives)]


def bpr(positive, negatives):
    return sum(-math.log(_sigmoid(positive - f)) for f in negatives) / len(negatives)


def gbce(positive, negatives, item_count, t):
    rate = len(negatives) / (item_count - 1)
    beta = rate * (t * (1 - 1 / rate) + 1 / rate)
    terms = [-math.log(_sigmoid(positive) ** beta), *(-math.log(1 - _sigmoid(f)) for f in negatives)]
    return sum(terms) / (len(negatives) + 1)


def cross_entropy(scores, target):
    return -math.log(math.exp(scores[target]) / sum(math.exp(f) for f in scores))


def sampled_cross_entropy(scores, target, sample, counts):
    """`counts`: how often each of the sample is expected in it."""
    others = sum(math.exp(scores[j]) / n for j, n in zip(sample, counts, strict=True) if j != target)
    return -math.log(math.exp(scores[target]) / (math.exp(scores[target]) + others))


def propensity(counts, exponent=0.05):
    total = sum(n + 1 for n in counts)
    return [((n + 1) / total) ** exponent for n in counts]


def dros_term(scores, propensities, radius, item):
    """The robust term of DROS's code, with the target replaced by `item`."""
    inner = sum(
        math.exp(p * (f - (i == item)) ** 2 / radius)
        for i, (f, p) in enumerate(zip(scores, propensities, strict=True))
    )
    return math.log(inner)
