"""The lists of a teacher at several checkpoints of its training, as one array."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from recdistill.errors import KnowledgeError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.types import PAD


def stack_rankings(checkpoints: Sequence[Knowledge]) -> tuple[Tensor, Tensor]:
    """Return the rows that every checkpoint was asked about, and their lists.

    Parameters
    ----------
    checkpoints
        The knowledge of V checkpoints of one teacher, early ones first, of one dataset.

    Returns
    -------
    tuple
        ``(N,)`` int64 row ids, ascending, and ``(V, N, K)`` int32 lists, `PAD` where one is shorter than the
        longest.

    Raises
    ------
    KnowledgeError
        There is none, one has no ranking, or they are of different datasets.
    """
    if not checkpoints or any(known.ranking is None for known in checkpoints):
        raise KnowledgeError(
            f"{len(checkpoints)} checkpoints are given, and each needs a ranking. Allowed: one or more knowledge "
            "folders that hold one. See what a folder holds with: recdistill knowledge show DIR"
        )
    prints = {(known.item_count, known.manifest.get("dataset_fingerprint")) for known in checkpoints}
    if len(prints) > 1:
        raise KnowledgeError(
            f"the checkpoints are of {len(prints)} datasets. Allowed: one. "
            "Make them anew on one with: recdistill teach ... --dataset DIR"
        )
    shared = reduce(np.intersect1d, (known.row_ids for known in checkpoints))  # (N,)
    width = max(known.ranking.shape[1] for known in checkpoints if known.ranking is not None)
    lists = np.full((len(checkpoints), len(shared), width), PAD, dtype=np.int32)
    for number, known in enumerate(checkpoints):
        if known.ranking is not None:
            rows = np.searchsorted(known.row_ids, shared)
            lists[number, :, : known.ranking.shape[1]] = known.ranking[rows]
    return torch.from_numpy(shared.astype(np.int64)), torch.from_numpy(lists)
