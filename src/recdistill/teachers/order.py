"""Does a teacher read the order of a history? Its answers to histories as they are, against shuffled ones.

Kim et al., "Lost in Sequence: Do Large Language Models Understand Sequential Recommendation?", KDD 2025 (LLM-SRec):
language-model recommenders lose 0 to 3 % when histories are shuffled, SASRec 4 to 8 %. A teacher that loses nothing
adds no sequential signal to a student.

Any teacher can be asked: with a scorer, by `order_sensitivity`; where answers come another way, by ranking the
targets for `shuffled_histories` and handing both ranks to `order_record`. The record goes into the
manifest under `ORDER`, where ``recdistill knowledge audit`` finds it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.evaluate.accuracy import row_metric
from recdistill.knowledge.gates import ORDER
from recdistill.teachers import base
from recdistill.types import PAD

__all__ = ["ORDER", "order_record", "order_rows", "order_sensitivity", "shuffled_histories"]

Ints = npt.NDArray[np.int64]

#: Rows that are asked about by default: enough to see a drop of a few per cent of a usual NDCG.
_ROWS = 1000


def order_rows(dataset: SequenceDataset, count: int = _ROWS) -> Ints:
    """Return positions of at most `count` validation rows whose history has an order: two items or more."""
    rows = dataset.rows("valid")
    return base.some_rows(rows[dataset.history_lengths(rows) > 1], count)


def shuffled_histories(history: Ints, seed: int = 0) -> Ints:
    """Return ``(B, L)`` histories with the items of each in random order; `PAD` stays on the right."""
    draw = np.random.default_rng(seed).random(history.shape)
    order = np.argsort(np.where(history == PAD, np.inf, draw), axis=1, kind="stable")
    return np.take_along_axis(history, order, axis=1)


def order_sensitivity(
    score_histories: base.Scorer,
    dataset: SequenceDataset,
    rows: Ints | None = None,
    *,
    length: int = 50,
    seed: int = 0,
    batch_size: int = 256,
) -> dict[str, Any] | None:
    """Ask a scorer about histories and about the same ones shuffled.

    Parameters
    ----------
    score_histories
        ``(B, L)`` histories, oldest first, to ``(B, I)`` scores.
    dataset
        Where rows come from.
    rows
        Positions; None: `order_rows`.
    length
        How many of the last items the scorer is given. These same items are shuffled.
    seed
        Of the shuffling.
    batch_size
        Rows at a time.

    Returns
    -------
    dict or None
        See `order_record`; None without rows.
    """
    rows = order_rows(dataset) if rows is None else rows
    if not len(rows):
        return None
    history = dataset.histories(rows, length)
    asked = (history, shuffled_histories(history, seed))
    ranks = [_ranks(score_histories, dataset, rows, given, batch_size) for given in asked]
    return order_record(ranks[0], ranks[1], seed=seed)


def order_record(ranks: Ints, shuffled: Ints, *, k: int = 20, seed: int = 0) -> dict[str, Any]:
    """Compare the ranks of the same rows' targets, with seen items kept.

    Parameters
    ----------
    ranks, shuffled
        ``(n,)`` 0-based, for histories as they are and for shuffled ones.
    k
        Cut-off.
    seed
        Of the shuffling, for the record.

    Returns
    -------
    dict
        ``rows``, ``hr@k``, ``ndcg@k``, ``shuffled_hr@k``, ``shuffled_ndcg@k``, ``drop`` (the share of NDCG@k that
        shuffling costs; None where it is 0 to begin with), ``drop_error`` (its standard error over rows) and ``seed``.
    """
    before, after = row_metric(ranks, f"ndcg@{k}"), row_metric(shuffled, f"ndcg@{k}")
    whole = float(before.mean()) if len(before) else 0.0
    gaps = before - after
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else 0.0
    return {
        "rows": len(ranks),
        f"hr@{k}": float((ranks < k).mean()) if len(ranks) else 0.0,
        f"ndcg@{k}": whole,
        f"shuffled_hr@{k}": float((shuffled < k).mean()) if len(ranks) else 0.0,
        f"shuffled_ndcg@{k}": float(after.mean()) if len(after) else 0.0,
        "drop": float(gaps.mean()) / whole if whole else None,
        "drop_error": error / whole if whole else None,
        "seed": seed,
    }


def _ranks(score: base.Scorer, dataset: SequenceDataset, rows: Ints, history: Ints, batch_size: int) -> Ints:
    """Return ``(n,)`` pessimistic ranks of the targets, seen items kept."""
    ranks = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        with torch.no_grad():
            scores = score(history[part]).float().cpu()
        targets = torch.from_numpy(dataset.targets(rows[part]))
        own = scores.gather(1, targets[:, None])
        ranks[part] = ((scores >= own).sum(1) - 1).numpy()
    return ranks
