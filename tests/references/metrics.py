"""Evaluation by the book: sorted lists, loops over rows and items, breadth-first search, all sign patterns."""

from __future__ import annotations

import math
from collections import deque
from itertools import product


def rank(scores: list[float], target: int, banned: set[int] = frozenset()) -> int:  # type: ignore[assignment]
    """Position of the target in the list sorted by score, behind everything that ties with it."""
    order = sorted(
        (item for item in range(len(scores)) if item == target or item not in banned),
        key=lambda item: (-scores[item], item == target),
    )
    return order.index(target)


def gains(ranks: list[int], k: int) -> dict[str, float]:
    hits = [r for r in ranks if r < k]
    n = len(ranks)
    return {
        f"hr@{k}": len(hits) / n,
        f"ndcg@{k}": sum(math.log(2) / math.log(r + 2) for r in hits) / n,
        f"mrr@{k}": sum(1 / (r + 1) for r in hits) / n,
    }


def gini(exposure: list[int]) -> float:
    """Half the mean absolute difference over the mean."""
    n, mean = len(exposure), sum(exposure) / len(exposure)
    return sum(abs(a - b) for a in exposure for b in exposure) / (2 * n * n * mean)


def hops(edges: set[tuple[int, int]], history: list[int], target: int, limit: int) -> int:
    """Breadth-first search from the history; ``limit + 1`` beyond the limit."""
    distance = dict.fromkeys(history, 0)
    queue = deque(history)
    while queue:
        item = queue.popleft()
        for first, second in edges:
            for here, there in ((first, second), (second, first)):
                if here == item and there not in distance:
                    distance[there] = distance[item] + 1
                    queue.append(there)
    return min(distance.get(target, limit + 1), limit + 1)


def all_sign_patterns_p(differences: list[float]) -> float:
    """Exact two-sided p-value over all 2^n sign patterns."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(value >= observed - 1e-12 for value in sums) / len(sums)


def holm(p_values: list[float]) -> list[float]:
    """Each value is the largest of (m - i + 1) p_(i) over the p-values up to it."""
    m = len(p_values)
    ordered = sorted(range(m), key=lambda k: p_values[k])
    return [
        min(1.0, max((m - i) * p_values[ordered[i]] for i in range(ordered.index(k) + 1))) for k in range(m)
    ]
