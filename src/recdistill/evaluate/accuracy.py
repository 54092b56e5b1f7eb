"""HR, NDCG and MRR at k, from 0-based ranks of the one relevant item.

With one relevant item a row, NDCG's ideal gain is 1 and HR is recall:
``HR@k = [r < k]``, ``NDCG@k = [r < k] / log2(r + 2)``, ``MRR@k = [r < k] / (r + 1)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, unknown_name

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KS: Final = (1, 5, 10, 20, 50)


def hit(ranks: Ints, k: int) -> Floats:
    """Return ``(n,)``: 1 where the target is among the first k, else 0."""
    return (ranks < k).astype(np.float64)


def ndcg(ranks: Ints, k: int) -> Floats:
    """Return ``(n,)`` normalised discounted cumulative gain of one relevant item."""
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def mrr(ranks: Ints, k: int) -> Floats:
    """Return ``(n,)`` reciprocal rank, 0 beyond the first k."""
    return np.where(ranks < k, 1.0 / (ranks + 1.0), 0.0)


#: Name of a metric → its formula.
METRICS: Final[dict[str, Callable[[Ints, int], Floats]]] = {"hr": hit, "ndcg": ndcg, "mrr": mrr}


def row_metric(ranks: Ints, metric: str) -> Floats:
    """Return ``(n,)`` values of a metric such as ``"ndcg@20"``.

    Raises
    ------
    ConfigError
        The name is not one of hr, ndcg, mrr followed by ``@k`` with k at least 1.
    """
    name, at, k = metric.partition("@")
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    if not at or not k.isdecimal() or int(k) < 1:
        raise ConfigError(f"metric {metric!r} lacks a cut-off of at least 1. Write it like {name}@20.")
    return METRICS[name](ranks, int(k))


def mean_metrics(ranks: Ints, ks: Sequence[int] = KS) -> dict[str, float]:
    """Return the means over rows as ``{"hr@1": ..., "ndcg@1": ..., "mrr@1": ..., "hr@5": ...}``.

    Raises
    ------
    ConfigError
        There are no rows, or a k is below 1.
    """
    if len(ranks) == 0:
        raise ConfigError("there is no row to average over. Evaluate a split (or a slice) that has rows.")
    names = [f"{metric}@{k}" for k in ks for metric in METRICS]
    return {name: float(row_metric(ranks, name).mean()) for name in names}
