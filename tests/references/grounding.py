"""Grounding written straight from its definition: every distance, in float64, and sorting."""

import numpy as np


def distances(queries, items, metric):
    """``(n, I)`` by the formula of each metric."""
    queries, items = queries.astype(np.float64), items.astype(np.float64)
    if metric == "cosine":
        unit_q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        unit_i = items / np.maximum(np.linalg.norm(items, axis=1, keepdims=True), 1e-12)
        return np.array([[1 - q @ z for z in unit_i] for q in unit_q])
    squared = np.array([[((q - z) ** 2).sum() for z in items] for q in queries])
    return squared if metric == "squared_l2" else np.sqrt(squared)


def rankings(distance, usable):
    """All titled items of each row, nearest first, equal ones by item."""
    lists = []
    for row in distance:
        listed = [item for item in range(len(row)) if usable[item]]
        lists.append(sorted(listed, key=lambda item: (row[item], item)))
    return lists


def target_ranks(distance, usable, targets, histories, tolerance=0.0):
    """Items that are not farther than the target, the target itself left out; the same without the history."""
    kept, unseen = [], []
    for row, target, history in zip(distance, targets, histories, strict=True):
        others = [item for item in range(len(row)) if item != target]
        ahead = others  # a target without title stands last
        if usable[target]:
            ahead = [i for i in others if usable[i] and row[i] <= row[target] + tolerance]
        kept.append(len(ahead))
        unseen.append(len([i for i in ahead if i not in set(history)]))
    return kept, unseen


def beams_first(order, row_distance, named):
    """Named items first, then the rest; a distance is the smallest of its own and all behind it."""
    items = list(named) + [item for item in order if item not in named]
    values = [min(row_distance[item] for item in items[place:]) for place in range(len(items))]
    return items, values
