"""How much a row's partner is listened to: sample-wise weights from the rank gap (LLMD4Rec).

With r the 1-based rank of the row's true item, own under the model that learns and other under its partner::

    w = clip_[0,2]( 1 + (own - other) / other )    if own > other
    w = clip_[0,2]( 1 - (other - own) / own )      else                                     # (1)

The partner's weight of the same row has the two exchanged, so that both add up to 2: what one model learns more from
the other, the other learns less from it. Beyond a factor of two between the ranks the weight is 0 or 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.strategies.catalogue import row_chunks
from recdistill.strategies.soft_labels import TARGET_RANKS
from recdistill.types import Batch, StudentOutput

Ints = npt.NDArray[np.int64]


def rank_gap_weights(own: Tensor, other: Tensor) -> Tensor:
    """Return ``(S,)`` float32 weights from 0 to 2, eq. (1), of two ``(S,)`` 1-based ranks."""
    own, other = own.float(), other.float()
    worse = 1 + (own - other) / other.clamp_min(1)
    better = 1 - (other - own) / own.clamp_min(1)
    return torch.where(own > other, worse, better).clamp(0.0, 2.0)


@torch.no_grad()
def ranks_now(output: StudentOutput, targets: Tensor) -> Tensor:
    """Return ``(S,)`` 1-based pessimistic ranks of the ``(S,)`` targets in a model's scores, a few rows at a time.

    They are counted here unless somebody counted them when he scored all items.
    """
    return output.shared(TARGET_RANKS, lambda: _counted(output, targets))


def _counted(output: StudentOutput, targets: Tensor) -> Tensor:
    hidden, table = output.hidden.float(), output.item_table.float()
    ranks = torch.empty_like(targets)
    for rows in row_chunks(hidden, len(table)):
        scores = hidden[rows] @ table.T  # (c, I)
        if output.item_bias is not None:
            scores += output.item_bias
        ranks[rows] = (scores >= scores.gather(1, targets[rows, None])).sum(1)
    return ranks


class RankWeights:
    """The weights of a phase's rows.

    Parameters
    ----------
    row_ids
        ``(N,)`` ascending.
    other
        ``(N,)`` 1-based ranks of the true items under the partner.
    own
        ``(N,)`` the same under the model that learns, measured before the phase; None: those of the step in which a
        row is learned from.
    """

    def __init__(self, row_ids: Ints, other: Ints, own: Ints | None = None) -> None:
        self.row_ids = torch.from_numpy(np.asarray(row_ids, dtype=np.int64).copy())
        self.other = torch.from_numpy(np.asarray(other, dtype=np.int64))
        self.own = None if own is None else torch.from_numpy(np.asarray(own, dtype=np.int64))

    def __call__(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)`` weights of a batch's rows, without gradient; 1 for a row that is not known."""
        ids = batch.row_ids.cpu()
        at = torch.searchsorted(self.row_ids, ids).clamp_max(len(self.row_ids) - 1)
        known = self.row_ids[at] == ids
        other = self.other[at]
        own = ranks_now(output, batch.targets).cpu() if self.own is None else self.own[at]
        weights = torch.where(known, rank_gap_weights(own, other), 1.0)
        return weights.to(output.hidden.device)
