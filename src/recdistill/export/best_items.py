"""The best items after a few histories, as a frame with titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recdistill.data import Catalogue
from recdistill.errors import DataError
from recdistill.export.scorer import ModelScorer
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]


def best_items_of(
    scorer: ModelScorer,
    catalogue: Catalogue,
    histories: Sequence[Sequence[str]],
    k: int,
    *,
    length: int,
    exclude_seen: bool = True,
    allowed: Tensor | None = None,
    rows: Ints | None = None,
    start: int = 0,
) -> pl.DataFrame:
    """Return the k best items after each of B histories, as `recdistill.export.Recommender.recommend` does.

    Parameters
    ----------
    scorer
        Scores padded histories.
    catalogue
        Names the items.
    histories
        Raw ids or titles, oldest first.
    k
        Items a history.
    length
        L, the longest history that is read.
    exclude_seen
        Leave out the items of the history.
    allowed
        The only items that may be named; None: all.
    rows
        ``(n,)`` the newest known row of each user, of all histories; None: none is known.
    start
        Number of the first of these histories among all.

    Raises
    ------
    DataError
        A history is empty, or names an item that the catalogue does not have.
    """
    if not histories:
        none = np.zeros(0, dtype=np.int64)
        return _frame(catalogue, none, none, none, np.zeros(0, dtype=np.float32))
    known = [catalogue.index_of(list(history)) for history in histories]
    if empty := [start + row for row, items in enumerate(known) if not len(items)]:
        raise DataError(f"history {empty[0]} is empty. A history needs at least one item: --history TITLE.")
    told = None if rows is None else rows[start : start + len(known)]
    scores = scorer(pad_histories(known, length), told).float()  # (B, I)
    if exclude_seen:
        owner = torch.from_numpy(np.repeat(np.arange(len(known)), [len(items) for items in known]))
        scores[owner, torch.from_numpy(np.concatenate(known))] = -torch.inf
    if allowed is not None:
        keep = torch.full((len(catalogue),), -torch.inf, device=scores.device)
        keep[allowed] = 0.0
        scores = scores + keep
    best = scores.topk(k, dim=1)
    values, items = best.values.cpu().numpy(), best.indices.cpu().numpy()
    row, rank = np.nonzero(np.isfinite(values))
    return _frame(catalogue, row + start, rank, items[row, rank], values[row, rank])


def pad_histories(histories: Sequence[Ints], length: int) -> Ints:
    """Return ``(B, L)``: the newest `length` items of each history, padded on the right."""
    width = min(length, max(len(items) for items in histories))
    grid = np.full((len(histories), width), PAD, dtype=np.int64)
    for row, items in enumerate(histories):
        newest = items[-width:]
        grid[row, : len(newest)] = newest
    return grid


def _frame(
    catalogue: Catalogue, owner: Ints, rank: Ints, items: Ints, scores: npt.NDArray[np.float32]
) -> pl.DataFrame:
    chosen = catalogue.frame[items]
    return pl.DataFrame(
        {
            "history": owner,
            "rank": rank + 1,
            "item_id": chosen["item_id"],
            "title": chosen["title"],
            "score": scores.astype(np.float32),
        }
    )
