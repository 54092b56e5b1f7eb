"""A teacher's score of one item of one row, by the rules of the specification (0.3), one number at a time."""

import math


def exact(query, item, metric):
    if metric == "dot":
        return sum(a * b for a, b in zip(query, item, strict=True))
    if metric == "cosine":
        dot = exact(query, item, "dot")
        return dot / math.sqrt(exact(query, query, "dot")) / math.sqrt(exact(item, item, "dot"))
    squared = sum((a - b) ** 2 for a, b in zip(query, item, strict=True))
    return -squared if metric == "squared_l2" else -math.sqrt(squared)


def from_list(items, distances, item, temperature, gap):
    """`items` without pads; `distances` of the same length, or None."""
    if distances is None:
        return -items.index(item) / temperature if item in items else -len(items) / temperature - gap
    if item in items:
        return -distances[items.index(item)] / temperature
    return min((-d / temperature for d in distances), default=0.0) - gap
