"""The Plackett-Luce loss of an ordered set above an unordered one, which several strategies share.

With S1 the scores of the ordered items, best first, and S2 those of the rest:

    L = sum_k log( sum_{j >= k} exp S1_j + sum_l exp S2_l ) - S1_k

It is invariant to a common shift of all scores and to the order of S2. An empty S2 gives ListMLE; one ordered
item gives the cross-entropy of that item.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

#: The logarithm of nothing. Finite: minus infinity has no gradient in a log-sum-exp of nothing else.
NOTHING: Final = -1e30


def relaxed_ranking_loss(ordered: Tensor, mask: Tensor, rest: Tensor) -> Tensor:
    """Return ``(S,)``, in float32 at least, the loss above of each row; 0 where nothing is ordered.

    Parameters
    ----------
    ordered
        ``(S, W)`` scores, a better item to the left of a worse one.
    mask
        ``(S, W)`` bool, which of them count.
    rest
        ``(S,)`` log-sum-exp of S2, `NOTHING` where it is empty.
    """
    scores = wide(ordered).masked_fill(~mask, NOTHING)  # (S, W)
    below = scores.flip(1).logcumsumexp(1).flip(1)  # (S, W), from k to the end
    terms = torch.logaddexp(below, rest.to(scores.dtype).unsqueeze(1)) - scores
    return terms.masked_fill(~mask, 0.0).sum(1)


def log_sum_exp(scores: Tensor, mask: Tensor) -> Tensor:
    """Return ``(S,)``, the log-sum-exp of the masked ``(S, n)`` scores, `NOTHING` where there is none."""
    if not scores.shape[1]:
        return wide(scores).new_full((len(scores),), NOTHING)
    return wide(scores).masked_fill(~mask, NOTHING).logsumexp(1)


def wide(scores: Tensor) -> Tensor:
    """Return scores in float32 at least: sums of exponentials need it."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
