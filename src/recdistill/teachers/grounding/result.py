"""What grounding returns, and the tensors it is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grounding:
    """Rankings of n rows, with the names and the types of `Knowledge`'s fields.

    Attributes
    ----------
    ranking
        ``(n, K)`` int32, nearest first, -1 where fewer items have a title.
    ranking_distance
        ``(n, K)`` float32 >= 0, non-decreasing; NaN where nothing is listed.
    target_distance
        ``(n,)`` float32; NaN where the target has no title.
    target_rank
        ``(n,)`` int32, 0-based, pessimistic, in the whole catalogue.
    target_rank_unseen
        ``(n,)`` int32, among the items that are not in the row's history.
    """

    ranking: npt.NDArray[np.int32]
    ranking_distance: Floats
    target_distance: Floats
    target_rank: npt.NDArray[np.int32]
    target_rank_unseen: npt.NDArray[np.int32]

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The fields by name, as `ShardWriter.append` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def joined(cls, parts: list[Grounding]) -> Grounding:
        """Return the rows of all parts, in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Ranked:
    """Rankings of B rows while they are made.

    Attributes
    ----------
    items, distance
        ``(B, K)``, nearest first; `PAD` and infinite where nothing is listed.
    near
        ``(B,)`` distances of the targets.
    ranks
        ``(2, B)`` of the targets: seen items kept, and dropped.
    """

    items: Tensor
    distance: Tensor
    near: Tensor
    ranks: Tensor


def grounding_of(ranked: Ranked) -> Grounding:
    """Bring a chunk's results into the types of `Knowledge`; an infinite distance is an unknown one."""
    distance, near = ranked.distance, ranked.near
    return Grounding(
        ranking=ranked.items.cpu().numpy().astype(np.int32),
        ranking_distance=distance.masked_fill(distance.isinf(), torch.nan).cpu().numpy(),
        target_distance=near.masked_fill(near.isinf(), torch.nan).cpu().numpy(),
        target_rank=ranked.ranks[0].cpu().numpy().astype(np.int32),
        target_rank_unseen=ranked.ranks[1].cpu().numpy().astype(np.int32),
    )
