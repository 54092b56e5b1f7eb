"""A teacher's output as named arrays, keyed by row id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a teacher knows. Absent fields are None; arrays may be memory-mapped.

    Attributes
    ----------
    row_ids
        ``(N,)`` int64, ascending, unique: the rows the teacher was asked about (any split).
    item_count
        I.
    ranking
        ``(N, K)`` int32 item indices, best first, -1 where the list is shorter.
    ranking_distance
        ``(N, K)`` float32, smaller is better, non-decreasing along a row.
    target_distance
        ``(N,)`` float32, distance of the true item.
    target_rank
        ``(N,)`` int32, 0-based pessimistic rank of the true item in the whole catalogue.
    target_rank_unseen
        ``(N,)`` int32, the same among the items not in the row's history.
    query_embeddings
        ``(N, D)`` float32 or float16.
    item_embeddings
        ``(I, D)`` float32 or float16.
    manifest
        JSON-able: teacher, metric, encoder, options, dataset fingerprint.
    """

    row_ids: Ints
    item_count: int
    ranking: npt.NDArray[np.int32] | None = None
    ranking_distance: Floats | None = None
    target_distance: Floats | None = None
    target_rank: npt.NDArray[np.int32] | None = None
    target_rank_unseen: npt.NDArray[np.int32] | None = None
    query_embeddings: Floats | None = None
    item_embeddings: Floats | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
