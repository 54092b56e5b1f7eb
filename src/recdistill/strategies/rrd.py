"""RRD: Relaxed Ranking Distillation, from DE-RRD, Kang et al., CIKM 2020. https://arxiv.org/abs/2012.04357

The student learns the teacher's order of its top items, and that they stand above the rest, whose order does not
matter. With f the student's scores, pi the K interesting items in the teacher's order and Z the uninteresting ones:

(1)  L = sum_k log( sum_{j >= k} exp f_pi_j + sum_{l in Z} exp f_l ) - f_pi_k
(2)  p_r ~ exp(-(r+1) / T)         an item at place r of the teacher's list comes into pi

=============  ==================  =======  ===========  =================================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =================================================
K              k                            40           the authors' code
|Z|            samples                      40           the authors' code
T              temperature                  10           the authors' code
.              pool                         500          the authors' code: how far down the list (2) goes
pi             interesting         (S, K)   topk         the authors' later advice, see difference 1
Z              negatives           (S, |Z|) sampled      the authors' code
=============  ==================  =======  ===========  =================================================

Where the authors' code differs
1. It draws pi by (2), without replacement: ``interesting="sampled"``. In the README of its successors the authors
   say that the first K items do better: ``"topk"``.
2. It draws once an epoch, here once a step; nothing is kept between steps.
3. ``negatives="full"``: Z is every item that is not in pi, their successor HetComp's way. It costs a pass over the
   catalogue. Sampled items are those neither in the list (its first `pool` items), nor the target.
4. It sums over the rows of a batch and over K. Here: mean over rows, sum over K; lambda is theirs if the loss of
   the targets is a mean as well.
5. It exponentiates scores as they are, which overflows at 89. No switch.
6. It leaves observed items out of both sets: ``exclude_history=True``. ``exclude_target=True`` is
   ours where a row has one target: its own loss teaches it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.catalogue import catalogue_log_sum_exp
from recdistill.strategies.draws import draw_columns, draw_negatives
from recdistill.strategies.listwise import log_sum_exp, relaxed_ranking_loss
from recdistill.strategies.options import one_of, positive
from recdistill.strategies.teacher_lists import TeacherList, teacher_list, teacher_ranking, unwanted_items
from recdistill.types import PAD, Batch, StudentOutput


class RRD(ListStrategy):
    """Relaxed Ranking Distillation, eq. (1).

    Parameters
    ----------
    k
        K, interesting items, at least 1; lists that are shorter give fewer.
    samples
        Uninteresting items of ``negatives="sampled"``, at least 1.
    interesting
        ``"topk"`` or ``"sampled"`` by (2).
    temperature
        T > 0 of (2): the larger, the flatter.
    pool
        Length of the list that (2) draws from and that sampled negatives avoid.
    negatives
        ``"sampled"`` or ``"full"``.
    exclude_target, exclude_history
        Whether these items are in neither set.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"ranking"})

    def __init__(
        self,
        *,
        k: int = 40,
        samples: int = 40,
        interesting: Literal["topk", "sampled"] = "topk",
        temperature: float = 10.0,
        pool: int = 500,
        negatives: Literal["sampled", "full"] = "sampled",
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("interesting", interesting, ("topk", "sampled"))
        one_of("negatives", negatives, ("sampled", "full"))
        positive(k=k, samples=samples, temperature=temperature, pool=pool)
        self.k, self.samples, self.interesting, self.temperature = k, samples, interesting, temperature
        self.pool, self.negatives = pool, negatives
        self.exclude_target, self.exclude_history = exclude_target, exclude_history

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        listed = teacher_list(
            batch,
            self.k if self.interesting == "topk" else self.pool,
            exclude_target=self.exclude_target,
            exclude_history=self.exclude_history,
        )
        items, mask = self.choose(listed)  # (S, W)
        unwanted = unwanted_items(batch, target=self.exclude_target, history=self.exclude_history)
        if self.negatives == "full":
            left_out = torch.cat([items.masked_fill(~mask, PAD), unwanted], dim=1)
            rest = catalogue_log_sum_exp(output, left_out)  # (S,)
            return relaxed_ranking_loss(output.scores(items), mask, rest)
        others = self._others(output, batch, unwanted)  # (S, |Z|)
        scores = output.scores(torch.cat([items, others], dim=1))
        rest = log_sum_exp(scores[:, items.shape[1] :], others != PAD)
        return relaxed_ranking_loss(scores[:, : items.shape[1]], mask, rest)

    @torch.no_grad()
    def choose(self, listed: TeacherList) -> tuple[Tensor, Tensor]:
        """Return pi ``(S, W)`` in the teacher's order and which of it counts."""
        if self.interesting == "topk":
            return listed.items, listed.mask
        weights = (-(listed.places + 1) / self.temperature).masked_fill(~listed.mask, -torch.inf)
        columns, drawn = draw_columns(weights, self.k)
        return listed.items.gather(1, columns), drawn

    def _others(self, output: StudentOutput, batch: Batch, unwanted: Tensor) -> Tensor:
        """Return ``(S, |Z|)`` sampled items, `PAD` where none is left to draw."""
        banned = torch.cat([teacher_ranking(batch)[0][:, : self.pool], unwanted], dim=1)
        return draw_negatives(output, self.samples, banned)
