"""Naive formulas of the strategies, row by row and item by item, in Python floats."""

from __future__ import annotations

import math


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def rank_of(logits: list[float], item: int) -> int:
    return sum(other > logits[item] for other in logits)


def top_items(logits: list[float], k: int) -> set[int]:
    return set(sorted(range(len(logits)), key=lambda i: -logits[i])[:k])


def listed_items(ranking: list[int], k: int, banned: set[int]) -> list[tuple[int, int]]:
    """Columns and items of the first k entries that are neither -1 nor banned."""
    kept = [(column, item) for column, item in enumerate(ranking) if item >= 0 and item not in banned]
    return kept[:k]


def rd_row(
    logits: list[float],
    items: list[int],
    *,
    temperature: float,
    mu: float,
    weighting: str,
    renormalise: bool = False,
    relative: bool = False,
) -> float:
    if not items:
        return 0.0
    static = [math.exp(-(r + 1) / temperature) for r in range(len(items))]
    static = [w / sum(static) for w in static]
    weights = []
    for r, item in enumerate(items):
        gap = (rank_of(logits, item) - r) / (len(logits) if relative else 1)
        dynamic = max(math.tanh(mu * gap), 0.0)
        weights.append({"static": static[r], "dynamic": dynamic, "hybrid": static[r] * dynamic}[weighting])
    total = sum(weights)
    if renormalise:
        weights = [w / total if total else 0.0 for w in weights]
    return sum(w * softplus(-logits[item]) for w, item in zip(weights, items, strict=True))


def dros_term(logits: list[float], item: int, p: list[float], radius: float) -> float:
    total = sum(
        math.exp(p[i] * (f - 1) ** 2 / radius) if i == item else math.exp(p[i] * f**2 / radius)
        for i, f in enumerate(logits)
    )
    return math.log(total)


def paper_weights(
    logits: list[float],
    items: list[int],
    target_distance: float,
    gammas: tuple[float, float, float],
    beta: float,
    k: int,
) -> list[float]:
    """Eq. 6 to 10 of DLLM2Rec as they are printed; "proportional to" read as "equal to"."""
    best = top_items(logits, k)
    position, confidence, consistency = gammas
    return [
        position * math.exp(-(r + 1) / beta)
        + confidence * math.exp(-target_distance / beta)
        + consistency * (item in best)
        for r, item in enumerate(items)
    ]


def official_weights(
    logits: list[float], items: list[int], distances: list[float], gammas: tuple[float, float, float], k: int
) -> list[float]:
    """The weights of the authors' code."""
    best = top_items(logits, k)
    place = [math.exp(-(r + 1)) for r in range(len(items))]
    near = [math.exp(-d) + 1e-8 for d in distances]
    mixed = [
        gammas[0] * place[r] / sum(place)
        + gammas[1] * near[r] / sum(near)
        + gammas[2] * ((item in best) + 1e-8)
        for r, item in enumerate(items)
    ]
    return [w / sum(mixed) for w in mixed]


def official_loss(
    logits: list[list[float]],
    items: list[list[int]],
    weights: list[list[float]],
    negatives: list[int],
    *,
    alpha: float,
    p: list[float],
    radius: float,
    broadcast: bool,
) -> float:
    """The distillation loss of the authors' code: BCE and, times alpha, DROS for each place of the list."""
    count, total = len(logits), 0.0
    for place in range(len(items[0])):
        terms = [dros_term(logits[s], items[s][place], p, radius) for s in range(count)]
        w = [weights[s][place] for s in range(count)]
        bce = [
            softplus(-logits[s][items[s][place]]) + softplus(logits[s][negatives[s]] - 1)
            for s in range(count)
        ]
        total += sum(a * b for a, b in zip(w, bce, strict=True)) / count
        if broadcast:
            total += alpha * sum(a * b for a in w for b in terms) / count**2
        else:
            total += alpha * sum(a * b for a, b in zip(w, terms, strict=True)) / count
    return total
