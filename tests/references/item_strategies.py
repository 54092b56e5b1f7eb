"""DE, HTD, FreqD and PCKD as their papers write them: loops over items, pairs and experts, in double precision."""

from __future__ import annotations

import math

import numpy as np


def de(teacher, alphas, experts, noise, tau):
    """Sum over items of || z - sum_m a_m e_m ||^2; `experts` are the M outputs of each item."""
    total = 0.0
    for z, alpha, outputs, g in zip(teacher, alphas, experts, noise, strict=True):
        logits = [(math.log(a) + n) / tau for a, n in zip(alpha, g, strict=True)]
        top = max(logits)
        raw = [math.exp(value - top) for value in logits]
        shares = [value / sum(raw) for value in raw]
        rebuilt = sum(share * np.asarray(out) for share, out in zip(shares, outputs, strict=True))
        total += float(np.square(np.asarray(z) - rebuilt).sum())
    return total


def mlp(weights, biases, x):
    """One expert: two layers with a ReLU between them."""
    inner = np.maximum(weights[0] @ x + biases[0], 0)
    return weights[1] @ inner + biases[1]


def cosine(x, y):
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return 0.0 if norms == 0 else float(np.dot(x, y) / norms)


def centres(vectors, groups):
    return {g: np.mean([v for v, c in zip(vectors, groups, strict=True) if c == g], 0) for g in set(groups)}


def htd_inside(student, teacher, groups, *, positive_only=False):
    """Sum over ordered pairs of a group, an item with itself among them."""
    total = 0.0
    for i in range(len(groups)):
        for j in range(len(groups)):
            wanted = cosine(teacher[i], teacher[j])
            if groups[i] == groups[j] and (wanted > 0 or not positive_only):
                total += (cosine(student[i], student[j]) - wanted) ** 2
    return total


def htd_across(student, teacher, groups, level):
    ours, theirs = centres(student, groups), centres(teacher, groups)
    if level == "prototype":
        return sum((cosine(ours[g], ours[h]) - cosine(theirs[g], theirs[h])) ** 2 for g in ours for h in ours)
    return sum(
        (cosine(ours[g], student[i]) - cosine(theirs[g], teacher[i])) ** 2
        for g in ours
        for i in range(len(groups))
    )


def nearest_adjacency(vectors, neighbours):
    """Dense D^-1/2 A D^-1/2 of the symmetric graph of nearest items by cosine; zero vectors have no edge."""
    count = len(vectors)
    known = [i for i in range(count) if np.any(vectors[i])]
    adjacency = np.zeros((count, count))
    for i in known:
        others = sorted((j for j in known if j != i), key=lambda j: -cosine(vectors[i], vectors[j]))
        for j in others[:neighbours]:
            adjacency[i, j] = adjacency[j, i] = 1.0
    degrees = adjacency.sum(1)
    scale = np.array([degree**-0.5 if degree else 0.0 for degree in degrees])
    return scale[:, None] * adjacency * scale[None, :]


def freqd(residuals, adjacency, alpha, items):
    """Sum over `items` of the squared rows of ((1 - alpha) I + alpha A) times the residuals of all items."""
    filtered = ((1 - alpha) * np.eye(len(adjacency)) + alpha * adjacency) @ residuals
    return float(np.square(filtered[items]).sum())


def pckd_list(before, after, tau):
    target = np.exp(np.array(before) / tau)
    target = target / target.sum()
    raw = np.exp(np.array(after) / tau)
    return float(-(target * np.log(raw / raw.sum())).sum())


def pckd_pairs(before, after):
    pairs = [(i, j) for i in range(len(before)) for j in range(i + 1, len(before))]
    values = [math.log1p(math.exp(-(after[i] - after[j]) * (before[i] - before[j]))) for i, j in pairs]
    return sum(values) / len(values)
