"""The teacher's list of a row, cut to K after unwanted items have left it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recdistill.errors import KnowledgeError
from recdistill.strategies.lookup import place_in
from recdistill.types import PAD, Batch


@dataclass(frozen=True, eq=False)
class TeacherList:
    """The W columns of the teacher's ranking among which each row's top K lie.

    Attributes
    ----------
    items
        ``(S, W)`` int64, `PAD` where the list is shorter.
    places
        ``(S, W)`` int64, 0-based place of an item in its row's list, after unwanted items have left.
    mask
        ``(S, W)`` bool, whether an item is one of the K.
    """

    items: Tensor
    places: Tensor
    mask: Tensor


def teacher_list(batch: Batch, k: int, *, exclude_target: bool, exclude_history: bool) -> TeacherList:
    """Return the first K items of each row's ranking that are not excluded.

    No column is moved, so that other fields of the knowledge (distances) stay aligned with the first W
    columns. W is K, one more if the target must go, and twice K if the history must go (the 2K of RD's code).

    Raises
    ------
    KnowledgeError
        The batch carries no ranking.
    """
    ranking, covered = teacher_ranking(batch)
    width = 2 * k if exclude_history else k + int(exclude_target)
    items = ranking[:, :width]  # (S, W)
    keep = (items != PAD) & covered.unsqueeze(1)
    if exclude_target:
        keep = keep & (items != batch.targets.unsqueeze(1))
    if exclude_history:
        keep = keep & ~_in_history(items, batch)
    places = keep.cumsum(1) - 1
    return TeacherList(items, places, keep & (places < k))


def teacher_ranking(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the ``(S, K)`` ranking, and ``(S,)`` which rows the teacher was asked about.

    Raises
    ------
    KnowledgeError
        The batch carries no ranking.
    """
    knowledge = batch.knowledge
    if knowledge is None or knowledge.ranking is None:
        raise KnowledgeError(
            "the batch carries no teacher ranking. A list strategy needs the field 'ranking'. "
            "Make it with: recdistill teach graph --dataset DIR --out DIR"
        )
    return knowledge.ranking, knowledge.covered


def _in_history(items: Tensor, batch: Batch) -> Tensor:
    """Return ``(S, W)`` bool, whether an item occurs in the row's history up to its supervised position."""
    return place_in(seen_items(batch), items) != PAD


def seen_items(batch: Batch) -> Tensor:
    """Return ``(S, L)``, the items of each row's history up to its supervised position, `PAD` after it."""
    if batch.positions is None:
        return batch.history
    length = batch.history.shape[1]
    seen = batch.history[batch.positions // length]
    steps = torch.arange(length, device=seen.device)
    return seen.masked_fill(steps > (batch.positions % length).unsqueeze(1), PAD)


def unwanted_items(batch: Batch, *, target: bool, history: bool) -> Tensor:
    """Return ``(S, P)``, the row's target, its history or both, as the flags say; `PAD` allowed, P can be 0."""
    parts = [batch.targets.unsqueeze(1)] if target else []
    parts += [seen_items(batch)] if history else []
    return torch.cat(parts, dim=1) if parts else batch.targets.new_empty(len(batch.targets), 0)


def contained(items: Tensor, pool: Tensor) -> Tensor:
    """Return ``(S, W)`` bool, whether each of the ``(S, W)`` items is in its row of the ``(S, P)`` pool.

    W passes over ``(S, P)``, never an ``(S, W, P)`` array. `PAD` is in no pool.
    """
    found = [(pool == items[:, column : column + 1]).any(1) for column in range(items.shape[1])]
    return torch.stack(found, dim=1) & (items != PAD)
