"""Answering: rows into shards of a knowledge folder, and histories into scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.shards import ShardWriter
from recdistill.teachers import base
from recdistill.teachers.item_head.judging import queries_of
from recdistill.teachers.item_head.model import ItemHeadModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.plan import Plan, Segments
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]

_SHARD_ROWS = 8192
_SCORE_ROWS = 512


def answer(
    model: ItemHeadModel,
    plan: Plan,
    left: Ints,
    axes: Tensor,
    table: Tensor,
    writer: ShardWriter,
    options: ItemHeadOptions,
    *,
    top_k: int,
    progress: base.Progress | None = None,
) -> None:
    """Write the shards of one model.

    Shards are cut from all rows asked, answered or not: one that is computed again after a kill has the same
    company, so the same last digits.

    Parameters
    ----------
    model
        The one that may answer the rows.
    plan
        All rows asked of it.
    left
        ``(n,)`` positions of those that are not answered yet.
    axes, table
        ``(d + 1, W)`` and ``(I, W)`` of `joint_space`.
    writer
        Where to.
    options
        For batches and precision.
    top_k
        M.
    progress
        Called with the rows answered.
    """
    for batches in _shards(plan, options.batch_tokens):
        rows = np.sort(np.concatenate([plan.batch(pieces).rows for pieces in batches]))
        if not np.isin(rows, left).any():
            continue
        answers = [queries_of(model, plan, pieces, options) for pieces in batches]
        order = np.argsort(np.concatenate([found for found, _ in answers]))
        queries = torch.cat([vectors.cpu() for _, vectors in answers])[torch.from_numpy(order)]
        kept = (queries @ axes).half().numpy()  # (n, W)
        known = base.knowledge_from_scorer(
            _row_scorer(rows, kept, table),
            plan.dataset,
            rows,
            length=1,
            top_k=top_k,
            batch_size=_SCORE_ROWS,
            progress=progress,
            query_embeddings=kept,
        )
        writer.append(known.row_ids, **known.fields)


def history_scores(
    model: ItemHeadModel,
    table: Tensor,
    tokens: Segments,
    dataset: SequenceDataset,
    histories: Ints,
    options: ItemHeadOptions,
) -> Tensor:
    """Return the scores ``(B, I)`` float32 of ``(B, L)`` histories, `PAD` on the right, under a head ``(I, d + 1)``."""
    known = histories != PAD
    asked = _bare(dataset, histories[known], np.cumsum(known.sum(1)))
    plan = Plan.of(asked, tokens, np.arange(len(histories)), options.max_items)
    scores = torch.empty(len(histories), dataset.item_count)
    for pieces in plan.in_order(options.batch_tokens):
        rows, queries = queries_of(model, plan, pieces, options)
        scores[torch.from_numpy(rows)] = (queries @ table.T).cpu()
    return scores


def _row_scorer(rows: Ints, queries: npt.NDArray[np.float16], table: Tensor) -> base.RowScorer:
    def score(part: Ints, history: Ints) -> Tensor:
        return torch.from_numpy(queries[np.searchsorted(rows, part)]).float() @ table.T

    return score


def _shards(plan: Plan, budget: int) -> list[list[Ints]]:
    """Return the plan's batches in groups of about `_SHARD_ROWS` rows."""
    groups: list[list[Ints]] = []
    size = _SHARD_ROWS
    for pieces in plan.in_order(budget):
        if size >= _SHARD_ROWS:
            groups.append([])
            size = 0
        groups[-1].append(pieces)
        size += plan.rows_in(pieces)
    return groups


def _bare(dataset: SequenceDataset, events: Ints, ends: Ints) -> SequenceDataset:
    """Return a dataset of histories alone: one row a history, whose answer is a place holder."""
    sizes = np.diff(ends, prepend=0)
    offsets = np.concatenate([[0], np.cumsum(sizes + 1)])
    filled = np.insert(events, ends, 0)
    rows = np.arange(len(ends))
    return replace(
        dataset,
        events=filled,
        offsets=offsets,
        row_ids=rows,
        row_events=offsets[1:] - 1,
        row_sequences=rows,
        row_splits=np.zeros(len(ends), dtype=np.int8),
        timestamps=None,
    )
