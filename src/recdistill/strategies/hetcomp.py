"""HetComp: easy-to-hard ranking distillation from a teacher's training checkpoints, Kang et al., WWW 2023.
https://arxiv.org/abs/2303.01130

A finished teacher is hard to copy; what it ranked early in its training is easier. Each row starts at the first
checkpoint's list and goes on to the next when the student has come near enough. With f the student's scores and
pi^v the list of K items at checkpoint v = 0 .. V, V the finished teacher:

(1)  before V:  L = sum_{i in pi^v} log( exp f_i + sum_{j not in pi^v} exp f_j ) - f_i         in no order
(2)  at V:      L = w mean over two shares c of RRD of the first c K items of pi^V above all others
(3)  d(v) = 1 - NDCG of the student's list for pi^v, of relevance 2^exp(-r/10) - 1 at the student's place r
(4)  on to v + 1 if d'/d(v+1) > alpha 0.995^(epoch div p), or < 1, where d' was d(v+1) when the row came to v

=============  ==================  =======  ===========  =================================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =================================================
K              k                            100          the authors' code
c              share, top_share             0.5, 0.1     the authors' code
w              late_weight                  0.5          the authors' code: lambda is 0.01, at the end 0.005
alpha          alpha                        1.05         the authors' code
p              interval                     10           the authors' code: epochs between two looks at (4)
r              depth                        50           the authors' code: how long the lists of (3) are
v              levels              (N,)     0            a state of each row, kept in checkpoints
=============  ==================  =======  ===========  =================================================

Where the authors' code differs
1. It distils six different models at once and averages their lists at the checkpoints each row has reached. Here
   the trajectory is that of one teacher.
2. It looks at (4) between epochs for all rows; here at each row when it comes in an epoch that is a multiple of p.
3. It goes over to (2) when nearly all rows are at V: ``switch="all"``. Here each row by itself.
4. It has no other loss, and the observed items stand in (1) and (2) beside the listed ones. Here the student's own
   loss does that; the target leaves the lists.
5. It subtracts the listed items' exponentials from the sum over all, and clamps scores to +-40 for that. Here
   what is left is summed. No switch.

Without checkpoints, `attach` not called, all rows are at V: (2) alone, the RRD of a whole catalogue.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies.base import ListStrategy
from recdistill.strategies.catalogue import catalogue_log_sum_exp
from recdistill.strategies.listwise import log_sum_exp, relaxed_ranking_loss
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import not_negative, one_of, positive
from recdistill.strategies.student_lists import student_top_list
from recdistill.strategies.teacher_lists import TeacherList, teacher_list, teacher_ranking
from recdistill.types import PAD, Batch, StudentOutput

_DECAY = 0.995


class HetComp(ListStrategy):
    """Easy-to-hard ranking distillation, eq. (1) and (2).

    Parameters
    ----------
    k
        K, at least 1.
    share, top_share
        The two c of (2), above 0 and at most 1, `top_share` not above `share`.
    late_weight
        w >= 0, weight of (2) against (1).
    alpha
        alpha > 0 of (4).
    interval
        p, epochs between two looks at (4), at least 1. It must fit the length of a run.
    depth
        Length of the student's list in (3).
    switch
        ``"row"`` or ``"all"``: whether (2) begins for each row, or when all rows are at the last checkpoint.
    exclude_target, exclude_history
        Whether these items leave the teacher's lists.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"ranking"})
    row_ids: Tensor
    rankings: Tensor
    levels: Tensor
    distances: Tensor

    def __init__(
        self,
        *,
        k: int = 100,
        share: float = 0.5,
        top_share: float = 0.1,
        late_weight: float = 0.5,
        alpha: float = 1.05,
        interval: int = 10,
        depth: int = 50,
        switch: Literal["row", "all"] = "row",
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("switch", switch, ("row", "all"))
        positive(k=k, alpha=alpha, interval=interval, depth=depth)
        not_negative(late_weight=late_weight)
        if not 0 < top_share <= share <= 1:
            raise ConfigError(
                f"share is {share} and top_share is {top_share}. Allowed: above 0, top_share at most share, share at "
                "most 1. Set them in the strategy's options: hetcomp.share=0.5 hetcomp.top_share=0.1"
            )
        self.k, self.late_weight, self.alpha = k, late_weight, alpha
        self.interval, self.depth, self.switch = interval, depth, switch
        self.share, self.top_share = share, top_share
        self.exclude_target, self.exclude_history = exclude_target, exclude_history
        self.register_buffer("row_ids", torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("rankings", torch.empty(0, 0, 0, dtype=torch.int32), persistent=False)
        self.register_buffer("levels", torch.empty(0, dtype=torch.int64))
        self.register_buffer("distances", torch.empty(0))
        self._epoch = 0

    def attach(self, row_ids: Tensor, rankings: Tensor) -> None:
        """Take the lists of the earlier checkpoints, the first of the training first.

        Call it before training, and before a checkpoint of a run is loaded. `recdistill.knowledge.trajectory`
        makes both from knowledge folders.

        Parameters
        ----------
        row_ids
            ``(N,)`` int64, ascending. A row that is not among them is at the finished teacher from the start.
        rankings
            ``(V, N, K)``, `PAD` where a list is shorter.

        Raises
        ------
        KnowledgeError
            The shapes do not fit, or the row ids are not ascending.
        """
        if rankings.ndim != 3 or rankings.shape[1] != len(row_ids) or bool((row_ids.diff() <= 0).any()):
            raise KnowledgeError(
                f"rankings of the shape {tuple(rankings.shape)} do not fit {len(row_ids)} row ids. Allowed: "
                "(checkpoints, rows, items), row ids ascending. Make them from the folders with "
                "recdistill.knowledge.trajectory.stack_rankings"
            )
        device = self.row_ids.device
        self.row_ids, self.rankings = row_ids.to(device), rankings.to(device, torch.int32)
        self.levels = torch.zeros_like(self.row_ids)
        self.distances = torch.full(self.row_ids.shape, torch.nan, device=device)

    def on_epoch(self, epoch: int) -> None:
        """Remember the epoch: every `interval` epochs rows may go on."""
        self._epoch = epoch

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) or (2) of each row."""
        index = self._locate(batch)  # (S,), PAD where the row has no trajectory
        if self.training and self._epoch and self._epoch % self.interval == 0 and len(self.row_ids):
            self._advance(output, batch, index)
        level = self._level(index)
        last = level == len(self.rankings)
        if self.switch == "all" and len(self.levels):
            last = last & (self.levels == len(self.rankings)).all()
        listed = self._list(batch, index, level)
        above = listed.mask & (~last.unsqueeze(1) | _first(listed, self.share))  # (S, W)
        rest = catalogue_log_sum_exp(output, listed.items.masked_fill(~above, PAD))  # (S,)
        scores = output.scores(listed.items).float()  # (S, W)
        early = torch.logaddexp(scores, rest.unsqueeze(1)) - scores
        early = early.masked_fill(~listed.mask, 0.0).sum(1)
        return torch.where(last, self.late_weight * self._late(listed, scores, rest, above), early)

    def _late(self, listed: TeacherList, scores: Tensor, rest: Tensor, above: Tensor) -> Tensor:
        """Return ``(S,)``, eq. (2) without w; `rest` sums over all items but those `above`."""
        top = _first(listed, self.top_share)  # (S, W)
        others = torch.logaddexp(rest, log_sum_exp(scores, above & ~top))
        return 0.5 * (relaxed_ranking_loss(scores, above, rest) + relaxed_ranking_loss(scores, top, others))

    def _locate(self, batch: Batch) -> Tensor:
        if not len(self.row_ids):
            return torch.full_like(batch.row_ids, PAD)
        at = torch.searchsorted(self.row_ids, batch.row_ids).clamp_max(len(self.row_ids) - 1)
        return at.masked_fill(self.row_ids[at] != batch.row_ids, PAD)

    def _level(self, index: Tensor) -> Tensor:
        """Return ``(S,)``, the checkpoint of each row; the last for a row without trajectory."""
        if not len(self.row_ids):
            return torch.zeros_like(index)
        return self.levels[index.clamp_min(0)].masked_fill(index == PAD, len(self.rankings))

    def _list(self, batch: Batch, index: Tensor, level: Tensor) -> TeacherList:
        """Return each row's list at its checkpoint."""
        ranking, covered = teacher_ranking(batch)
        early = level < len(self.rankings)
        if len(self.row_ids):
            width = max(ranking.shape[1], self.rankings.shape[2])
            stored = self.rankings[level.clamp_max(len(self.rankings) - 1), index.clamp_min(0)].long()
            ranking = torch.where(early.unsqueeze(1), _padded(stored, width), _padded(ranking, width))
        known = replace(batch.knowledge, ranking=ranking, covered=covered)  # type: ignore[type-var]
        return teacher_list(
            replace(batch, knowledge=known),
            self.k,
            exclude_target=self.exclude_target,
            exclude_history=self.exclude_history,
        )

    @torch.no_grad()
    def _advance(self, output: StudentOutput, batch: Batch, index: Tensor) -> None:
        """Move rows on by (4)."""
        last, level = len(self.rankings), self._level(index)
        own = student_top_list(output, self.depth)  # (S, r)
        following = self.distance(own, self._list(batch, index, (level + 1).clamp_max(last)))
        after = self.distance(own, self._list(batch, index, (level + 2).clamp_max(last)))
        safe = index.clamp_min(0)
        before = self.distances[safe]  # (S,), nan where the row was not looked at
        ratio = before / following.clamp_min(torch.finfo(following.dtype).tiny)
        threshold = self.alpha * _DECAY ** (self._epoch // self.interval)
        moved = ~before.isnan() & ((ratio > threshold) | (ratio < 1)) & (level < last) & (index != PAD)
        _, covered = teacher_ranking(batch)
        seen = (index != PAD) & covered
        moved &= covered
        kept = torch.where(before.isnan(), following, before)
        self.distances[index[seen]] = torch.where(moved, after, kept)[seen]
        self.levels[index[seen]] = (level + moved)[seen]

    def distance(self, own: Tensor, listed: TeacherList) -> Tensor:
        """Return ``(S,)``, eq. (3) of the student's ``(S, r)`` list for the first r items of the teacher's."""
        places = torch.arange(own.shape[1], device=own.device, dtype=torch.float32)
        gain = (2 ** torch.exp(-places / 10) - 1) / torch.log2(places + 2)  # (r,)
        top = listed.items.masked_fill(~listed.mask | (listed.places >= own.shape[1]), PAD)
        return 1 - ((place_in(top, own) != PAD) * gain).sum(1) / gain.sum()


def _first(listed: TeacherList, share: float) -> Tensor:
    """Return ``(S, W)``, which items are the first `share` of their row's list, at least one."""
    count = (share * listed.mask.sum(1, keepdim=True)).long().clamp_min(1)
    return listed.mask & (listed.places < count)


def _padded(ranking: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(ranking, (0, width - ranking.shape[1]), value=PAD)
