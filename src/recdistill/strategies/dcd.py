"""DCD: Dual Correction Distillation, Lee and Kim, CIKM 2021. https://arxiv.org/abs/2109.03459

The student corrects where its ranking differs from the teacher's: items it underestimates are to stand in the
teacher's order above those it overestimates. With rank^S and rank^T the places of an item, from 0:

(1)  D_under(i) = tanh(max(eps (rank^S_i - rank^T_i), 0))
(2)  D_over(i)  = tanh(max(eps (rank^T_i - rank^S_i), 0))
(3)  UCD = eq. (1) of RRD with pi ~ D_under, in the teacher's order, and Z ~ D_over
(4)  ICD = the same with rows and items in each other's place
(5)  L = user_weight UCD + item_weight ICD

=============  ==================  =======  ===========  ==================================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  ==================================================
K              k                            100          the port (KDs): items drawn for pi and for Z
.              pool                         100          ours; the port has 500 of a teacher that ranks all
eps            sharpness                    10           0.1 in the port; here of the gap as a share of I
.              floor                        0            1e-5 in the port, see difference 2
rank^S         ranks               (S, W)   sampled      the port ranks all items once an epoch
.              item_weight                  0            the port has no item side
=============  ==================  =======  ===========  ==================================================

Where others' code differs (the authors' code was not to be had)
1. A language model and a student share 1 to 4 % of their top 20, so that no listed item is overestimated, and the
   port's Z, drawn from the list, is the teacher's own items at random. ``over="student"`` draws Z from the
   student's top `pool` items that the teacher does not list, whose rank^T is taken to be the length of the
   list. ``over="list"`` is the port's.
2. Its `floor` under both weights makes a draw possible where student and teacher agree, and random. Here an item
   without discrepancy is not drawn, and a row that draws no pi has no loss.
3. Its pi is in the order of the draw. Here in the teacher's. No switch.
4. ``relative_gap=False`` takes the gap of (1) and (2) in places, as the port does: over thousands of items tanh is
   then 1 everywhere.
5. ``ranks="sampled"`` estimates rank^S of listed items from `samples` items that the batch shares: (1) needs no
   exact rank to draw by. ``"exact"`` counts.
6. No teacher ranks rows for an item. `item_weight` adds (4) within the batch: for every item that two or more
   rows list, those rows by the item's place in their lists, above the rows that do not list it.
7. The paper adds the loss of RRD: ``--strategy rrd+dcd``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.draws import draw_columns
from recdistill.strategies.item_side import item_side_loss
from recdistill.strategies.listwise import log_sum_exp, relaxed_ranking_loss
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import not_negative, one_of, positive
from recdistill.strategies.student_lists import sampled_ranks, student_ranks, student_top_list
from recdistill.strategies.teacher_lists import TeacherList, teacher_list, unwanted_items
from recdistill.types import PAD, Batch, StudentOutput


class DCD(ListStrategy):
    """Dual Correction Distillation, eq. (5).

    Parameters
    ----------
    k
        Items drawn for each of the two sets, at least 1.
    pool
        Length of the teacher's and of the student's list that they are drawn from.
    sharpness
        eps > 0 of (1) and (2).
    relative_gap
        Whether the gap is a share of the catalogue.
    over
        ``"student"`` or ``"list"``, see difference 1.
    floor
        Least weight >= 0 of a listed item in a draw.
    ranks
        ``"sampled"`` or ``"exact"`` student ranks.
    samples
        Items drawn to estimate a rank.
    user_weight, item_weight
        Weights >= 0 of the two sides.
    item_samples
        Items of the batch that the item side takes, at most.
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
        k: int = 100,
        pool: int = 100,
        sharpness: float = 10.0,
        relative_gap: bool = True,
        over: Literal["student", "list"] = "student",
        floor: float = 0.0,
        ranks: Literal["sampled", "exact"] = "sampled",
        samples: int = 256,
        user_weight: float = 1.0,
        item_weight: float = 0.0,
        item_samples: int = 64,
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("over", over, ("student", "list"))
        one_of("ranks", ranks, ("sampled", "exact"))
        positive(k=k, pool=pool, sharpness=sharpness, samples=samples, item_samples=item_samples)
        not_negative(floor=floor, user_weight=user_weight, item_weight=item_weight)
        self.k, self.pool, self.sharpness, self.relative_gap = k, pool, sharpness, relative_gap
        self.over, self.floor, self.ranks, self.samples = over, floor, ranks, samples
        self.user_weight, self.item_weight, self.item_samples = user_weight, item_weight, item_samples
        self.exclude_target, self.exclude_history = exclude_target, exclude_history

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (5): (3) of each row, and what each row contributes to (4)."""
        listed = teacher_list(
            batch, self.pool, exclude_target=self.exclude_target, exclude_history=self.exclude_history
        )
        rows = output.hidden.new_zeros(len(batch.targets), dtype=torch.float32)
        if self.user_weight:
            rows = rows + self.user_weight * self.user_side(output, batch, listed)
        if self.item_weight:
            rows = rows + self.item_weight * item_side_loss(output, listed, self.item_samples)
        return rows

    def user_side(self, output: StudentOutput, batch: Batch, listed: TeacherList) -> Tensor:
        """Return ``(S,)``, eq. (3) of each row."""
        pool, allowed = self._pool(output, batch, listed)  # (S, n)
        width = listed.items.shape[1]
        scores = output.scores(torch.cat([listed.items, pool], dim=1))  # (S, W + n)
        under, mask, over, drawn = self.draw(output, listed, scores[:, :width], allowed)
        rest = log_sum_exp(scores[:, -pool.shape[1] :].gather(1, over), drawn)
        return relaxed_ranking_loss(scores[:, :width].gather(1, under), mask, rest)

    @torch.no_grad()
    def draw(
        self, output: StudentOutput, listed: TeacherList, scores: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return columns ``(S, k)`` of the list, pi, in its order, and of the ``(S, n)`` pool, Z; and which count.

        `scores` are those of the listed items, `allowed` says which of the pool may be drawn.
        """
        item_count = output.item_table.shape[0]
        if self.ranks == "exact":
            ranks = student_ranks(output, listed.items)  # (S, W)
        else:
            ranks = sampled_ranks(output, listed.items, self.samples, own=scores)
        behind = self.discrepancy(ranks - listed.places, item_count)  # (S, W), eq. (1)
        under, mask = draw_columns(_log(behind, listed.mask), self.k)
        if self.over == "list":
            gap = listed.places - ranks
        else:
            gap = listed.mask.sum(1, keepdim=True) - torch.arange(allowed.shape[1], device=ranks.device)
        ahead = self.discrepancy(gap, item_count)  # (S, n), eq. (2)
        return under, mask, *draw_columns(_log(ahead, allowed), self.k)

    @torch.no_grad()
    def _pool(self, output: StudentOutput, batch: Batch, listed: TeacherList) -> tuple[Tensor, Tensor]:
        """Return the ``(S, n)`` items that Z is drawn from, and which of them may be drawn."""
        if self.over == "list":
            return listed.items, listed.mask
        pool = student_top_list(output, self.pool)  # best first
        banned = unwanted_items(batch, target=self.exclude_target, history=self.exclude_history)
        allowed = place_in(torch.cat([listed.items, banned], dim=1), pool) == PAD
        return pool, allowed & ~output.is_cold(pool)

    def discrepancy(self, gap: Tensor, item_count: int) -> Tensor:
        """Return (1) or (2) of a gap in places."""
        gap = gap.float() / item_count if self.relative_gap else gap.float()
        return torch.tanh(self.sharpness * gap).clamp_min(self.floor)


def _log(weights: Tensor, allowed: Tensor) -> Tensor:
    """Return the logarithm of weights, minus infinity where nothing may be drawn."""
    return weights.log().masked_fill(~allowed, -torch.inf)
