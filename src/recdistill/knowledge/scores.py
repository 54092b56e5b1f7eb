"""What a teacher thinks of arbitrary items: from vectors exactly, from a list by rule (spec 0.3)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recdistill.knowledge.lists import row_chunks
from recdistill.types import PAD

#: How queries and items are compared. BIGRec measures ``l2``, the paper's eq. 4 and 7 say ``squared_l2``.
METRICS: Final[tuple[str, ...]] = ("squared_l2", "l2", "cosine", "dot")


def exact_scores(queries: Tensor, table: Tensor, items: Tensor | None, metric: str) -> Tensor:
    """Compare query vectors with item vectors; larger is better.

    Parameters
    ----------
    queries
        ``(n, D)``.
    table
        ``(I, D)``.
    items
        ``(n, m)``, `PAD` allowed (its score means nothing), or None for all items.
    metric
        One of `METRICS`.

    Returns
    -------
    Tensor
        ``(n, m)`` or ``(n, I)`` float32.
    """
    if metric == "cosine":
        queries, table = normalize(queries, dim=-1), _normalised(table, items)
    if items is None:
        return _all_scores(queries, table, metric)
    scores = torch.empty(items.shape, dtype=torch.float32)
    for rows in row_chunks(len(items), items.shape[1] * table.shape[1]):
        vectors = table[items[rows].clamp_min(0)]  # (c, m, D)
        query = queries[rows].unsqueeze(1)  # (c, 1, D)
        if metric in ("cosine", "dot"):
            if metric == "cosine":
                vectors = normalize(vectors, dim=-1)
            scores[rows] = (vectors @ query.transpose(1, 2)).squeeze(-1)
        else:
            squared = (vectors - query).square().sum(-1)  # (c, m)
            scores[rows] = -squared if metric == "squared_l2" else -squared.sqrt()
    return scores


def _normalised(table: Tensor, items: Tensor | None) -> Tensor:
    return normalize(table, dim=-1) if items is None else table


def _all_scores(queries: Tensor, table: Tensor, metric: str) -> Tensor:
    if metric in ("cosine", "dot"):
        return queries @ table.T  # (n, I)
    # Language-model vectors share a large mean. Distances do not change when it is taken away, and the
    # expansion ‖g‖² + ‖z‖² - 2 g·z then loses few digits to cancellation.
    centre = table.mean(0)
    queries, table = queries - centre, table - centre
    squared = queries.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * queries @ table.T  # (n, I)
    squared.clamp_min_(0)
    return -squared if metric == "squared_l2" else -squared.sqrt()


def list_scores(
    ranking: Tensor,
    distance: Tensor | None,
    items: Tensor | None,
    item_count: int,
    temperature: float,
    gap: float,
) -> Tensor:
    """Score items from a ranked list: ``-D/τ`` inside (``-r/τ`` without distances), a constant outside.

    Outside, the score is ``min(inside) - gap``; without distances ``-n/τ - gap`` for a list of n items.

    Parameters
    ----------
    ranking
        ``(n, K)``, `PAD` where the list is shorter.
    distance
        ``(n, K)`` or None.
    items
        ``(n, m)`` or None for all items.
    item_count
        I.
    temperature
        τ.
    gap
        Δ of the specification.
    """
    listed = ranking != PAD  # (n, K)
    lengths = listed.sum(1)
    if distance is None:
        inside = (
            -torch.arange(ranking.shape[1], dtype=torch.float32).expand(ranking.shape) / temperature
        )  # (n, K)
        outside = -lengths / temperature - gap  # (n,)
    else:
        inside = -distance / temperature
        worst = inside.masked_fill(~listed, torch.inf).amin(1)
        outside = torch.where(lengths > 0, worst, torch.zeros_like(worst)) - gap
    if items is None:
        scores = outside[:, None].expand(-1, item_count + 1).clone()  # (n, I + 1)
        scores.scatter_(1, torch.where(listed, ranking, item_count), inside)  # pads write into a spare column
        return scores[:, :item_count]
    scores = torch.empty(items.shape, dtype=torch.float32)
    for rows in row_chunks(len(items), items.shape[1] * ranking.shape[1]):
        same = (items[rows].unsqueeze(2) == ranking[rows].unsqueeze(1)) & listed[rows].unsqueeze(
            1
        )  # (c, m, K)
        found, slot = same.max(2)
        scores[rows] = torch.where(found, inside[rows].gather(1, slot), outside[rows].unsqueeze(1))
    return scores
