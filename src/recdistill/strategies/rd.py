"""RD: Ranking Distillation, Tang and Wang, KDD 2018. https://arxiv.org/abs/1809.07428

The student learns to rank the teacher's top K above the rest. Over the list T of a row, r = 0 .. K-1, f the
student's scores, I the number of items, the loss of a row is

(1)  L = sum_r w_r softplus(-f_T[r])                         softplus(-x) = -log sigmoid(x)
(2)  w^a_r = exp(-(r+1)/lambda) / sum_k exp(-(k+1)/lambda)    static: where the item stands at the teacher's
(3)  w^b_r = max(tanh(mu (rank_r - r)), 0)                    dynamic: how far the student lags behind
(4)  w_r = w^a_r w^b_r                                        hybrid

=============  ==================  =======  ===========  =============================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =============================================
K              k                            10           the authors' code
lambda         temperature                  1.0          the authors' code
mu             mu                           0.1          the authors' code; 3 to 30 with relative_gap
rank           ranks               (S, W)   exact        the code samples
epsilon        samples                      100          the authors' code, with ranks="sampled"
.              start_epoch                  10           the authors' code: static up to and including it
=============  ==================  =======  ===========  =============================================

Where the authors' code differs
1. It estimates rank_r as floor((I-1) n / epsilon) from epsilon sampled items, n of which the student scores
   higher. The exact rank takes a few milliseconds: ``ranks="exact"`` is the default, ``"sampled"`` theirs.
   (It draws per row and epoch, and no observed item; here one draw a step serves all rows, and the few
   observed items in it stay.)
2. It does not renormalise w after (4), so that the loss fades as the student agrees: ``renormalise=False``.
   Later ports do.
3. It takes the targets out of the list before the cut to K: ``exclude_target=True``.
4. It computes log(sigmoid(x)), whose gradient is NaN below x = -88. Here softplus; no switch.
5. With a language model as teacher the ranks lie thousands apart and (3) is 1 everywhere.
   ``relative_gap=True`` divides the gap by I; then mu is of the order 3 to 30.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.options import one_of, positive
from recdistill.strategies.student_lists import sampled_ranks, student_ranks
from recdistill.strategies.teacher_lists import TeacherList, teacher_list
from recdistill.strategies.weights import divided, position_weights
from recdistill.types import Batch, StudentOutput

Weighting = Literal["static", "dynamic", "hybrid"]
_SATURATED = 9.5  # its tanh is 1 in float32


class RD(ListStrategy):
    """Ranking Distillation.

    Parameters
    ----------
    weighting
        ``"static"`` (2), ``"dynamic"`` (3) or ``"hybrid"`` (4).
    k
        Length of the teacher's list, at least 1.
    temperature
        lambda > 0 of (2): the larger, the flatter.
    mu
        Sharpness > 0 of (3).
    ranks
        ``"exact"`` or ``"sampled"`` student ranks.
    samples
        epsilon, items drawn to estimate a rank.
    start_epoch
        Up to and including this epoch, counted from 0, the weights are static.
    renormalise
        Whether a row's weights are divided by their sum.
    relative_gap
        Whether the gap of (3) is a share of the catalogue.
    exclude_target, exclude_history
        Whether these items leave the list before it is cut to K.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"ranking"})

    def __init__(
        self,
        *,
        weighting: Weighting = "hybrid",
        k: int = 10,
        temperature: float = 1.0,
        mu: float = 0.1,
        ranks: Literal["exact", "sampled"] = "exact",
        samples: int = 100,
        start_epoch: int = 10,
        renormalise: bool = False,
        relative_gap: bool = False,
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("weighting", weighting, ("static", "dynamic", "hybrid"))
        one_of("ranks", ranks, ("exact", "sampled"))
        positive(k=k, temperature=temperature, mu=mu, samples=samples)
        self.weighting, self.k, self.temperature, self.mu = weighting, k, temperature, mu
        self.ranks, self.samples, self.start_epoch = ranks, samples, start_epoch
        self.renormalise, self.relative_gap = renormalise, relative_gap
        self.exclude_target, self.exclude_history = exclude_target, exclude_history
        self._epoch = 0

    def on_epoch(self, epoch: int) -> None:
        """Remember the epoch: up to `start_epoch` the weights are static."""
        self._epoch = epoch

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        listed = teacher_list(
            batch, self.k, exclude_target=self.exclude_target, exclude_history=self.exclude_history
        )
        losses = softplus(-output.scores(listed.items).float())  # (S, W)
        return (self.weights(output, listed) * losses).sum(1)

    @torch.no_grad()
    def weights(self, output: StudentOutput, listed: TeacherList) -> Tensor:
        """Return ``(S, W)``, eq. (2), (3) or (4), 0 outside the list."""
        static = position_weights(listed, self.temperature, normalised=True)
        if self.weighting == "static" or self._epoch <= self.start_epoch:
            return static
        item_count = output.item_table.shape[0]
        if self.ranks == "exact":
            places = item_count if self.relative_gap else 1
            enough = self.k + _SATURATED / self.mu * places  # from there on (3) is 1
            ranks = student_ranks(output, listed.items, enough=enough)  # (S, W)
        else:
            ranks = sampled_ranks(output, listed.items, self.samples)
        gap = (ranks - listed.places) / (item_count if self.relative_gap else 1)
        weights = torch.tanh(self.mu * gap).clamp_min(0) * listed.mask
        if self.weighting == "hybrid":
            weights = weights * static
        return divided(weights, weights.sum(1, keepdim=True)) if self.renormalise else weights
