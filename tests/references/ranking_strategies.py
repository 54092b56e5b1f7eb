"""Naive formulas of the ranking strategies, row by row and item by item, in Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from references.strategies import softplus


def log_sum_exp(values: Sequence[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(v - peak) for v in values))


def softmax(values: Sequence[float]) -> list[float]:
    total = log_sum_exp(values)
    return [math.exp(v - total) for v in values]


def cd_terms(scores: Sequence[float], teacher: Sequence[float], t1: float, t2: float) -> list[float]:
    labels = [1 / (1 + math.exp(-(t + t2) / t1)) for t in teacher]
    return [q * softplus(-f) + (1 - q) * softplus(f) for q, f in zip(labels, scores, strict=True)]


def rrd(ordered: Sequence[float], rest: Sequence[float]) -> float:
    return sum(log_sum_exp([*ordered[k:], *rest]) - ordered[k] for k in range(len(ordered)))


def list_scores(
    ranking: Sequence[int],
    distances: Sequence[float] | None,
    items: Sequence[int],
    gap: float,
    standardise: bool,
) -> list[float]:
    """Section 0.3 of the specification, the list alone: minus the distance, or minus the place."""
    listed = [item for item in ranking if item >= 0]
    inside = [-distances[r] if distances else -float(r) for r in range(len(listed))]
    if standardise:
        mean = sum(inside) / len(inside)
        deviation = math.sqrt(sum((v - mean) ** 2 for v in inside) / len(inside)) or 1.0
        inside = [(v - mean) / deviation for v in inside]
    table = dict(zip(listed, inside, strict=True))
    return [table.get(item, min(inside) - gap) for item in items]


def discrepancies(gaps: Sequence[float], sharpness: float, floor: float) -> list[float]:
    return [max(math.tanh(max(sharpness * gap, 0.0)), floor) for gap in gaps]


def item_side(logits: list[list[float]], lists: list[list[int]]) -> list[float]:
    """Each row's terms: rows that list an item, by its place, above the rows that do not; equal places tie."""
    rows = [0.0] * len(logits)
    for item in {item for ranking in lists for item in ranking}:
        owners = [s for s, ranking in enumerate(lists) if item in ranking]
        if len(owners) < 2:
            continue
        place = {s: lists[s].index(item) for s in owners}
        for s in owners:
            below = [u for u in range(len(logits)) if place.get(u, math.inf) >= place[s]]
            rows[s] += log_sum_exp([logits[u][item] for u in below]) - logits[s][item]
    return rows


def popularity_groups(counts: Sequence[float], groups: int) -> list[list[int]]:
    """Section 1.5 of the specification: a greedy cut of the items by falling popularity."""
    limit, found, current = sum(counts) / groups, [], []
    for item in sorted(range(len(counts)), key=lambda i: -counts[i]):
        if current and sum(counts[i] for i in current) + counts[item] > limit:
            found.append(current)
            current = []
        current.append(item)
    if found and sum(counts[i] for i in current) <= limit / 2:
        found[-1] += current
    else:
        found.append(current)
    return found


def cross_entropy(teacher: Sequence[float], student: Sequence[float], tau: float) -> float:
    goal = softmax([t / tau for t in teacher])
    guess = softmax([f / tau for f in student])
    return -sum(p * math.log(q) for p, q in zip(goal, guess, strict=True))


def rce(
    teacher: dict[int, float],
    student: dict[int, float],
    sets: tuple[set[int], set[int], set[int]],
    beta: float,
    tau: float,
) -> float:
    """Eq. (2) of RCE-KD for Q^S, Q^T and A."""
    own, top, sample = sets
    gamma = math.exp(-beta * len(top & sample) / len(top))
    losses = [
        cross_entropy([teacher[i] for i in sorted(part)], [student[i] for i in sorted(part)], tau)
        for part in (own, sample | (top - sample - own))
    ]
    return (1 - gamma) * losses[0] + gamma * losses[1]


def order_free(logits: Sequence[float], top: Sequence[int]) -> float:
    """Eq. (1) of HetComp."""
    rest = [f for i, f in enumerate(logits) if i not in top]
    return sum(log_sum_exp([logits[i], *rest]) - logits[i] for i in top)


def list_distance(own: Sequence[int], top: Sequence[int]) -> float:
    """Eq. (3) of HetComp."""
    gain = [(2 ** math.exp(-r / 10) - 1) / math.log2(r + 2) for r in range(len(own))]
    return 1 - sum(g for g, item in zip(gain, own, strict=True) if item in top[: len(own)]) / sum(gain)


def divergence(teacher: Sequence[float], student: Sequence[float], tau: float) -> float:
    goal, guess = softmax([t / tau for t in teacher]), softmax([f / tau for f in student])
    return sum(p * math.log(p / q) for p, q in zip(goal, guess, strict=True) if p > 0)
