"""CD: Collaborative Distillation, Lee et al., ICDM 2019. https://arxiv.org/abs/1911.05276

The student predicts the teacher's soft label of sampled items A, with f the student's and t the teacher's scores:

(1)  L = mean_{i in A} q_i softplus(-f_i) + (1 - q_i) softplus(f_i)        gradient: sigmoid(f_i) - q_i
(2)  q_i = sigmoid((t_i + t2) / t1)
(3)  p_i ~ exp(-k_i / lambda)           an item at place k = 0, 1 .. of the guide's ranking comes into A, or
(4)  P(k) = (2 (n - k) - 1) / n^2       the better of two uniform draws from n places

=============  ==================  =======  ===========  =============================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =============================================
|A|            samples                      50           the port in UnKD; KDs has 2
t1, t2         scale, shift                 2, 0         both ports
n              pool                         3000         both ports
lambda         temperature                  100          ours: the kernel is recalled, not its value
t_i            `TeacherScores`     (S, |A|) from a list  ours, see difference 3
.              guide                        teacher      the port in UnKD; KDs: student
.              kernel                       best_of_two  both ports, see difference 2
=============  ==================  =======  ===========  =============================================

Where others' code differs (the authors' code was not to be had)
1. guide="teacher": half of A comes from the teacher's list by (3) or (4), half uniformly from outside it: a
   language model lists few items, and without the second half nothing would be pushed down.
   guide="student": A comes from the student's own top n: what it is confident about. Its ranking is
   estimated from `candidates` random items a step, shared by the batch, so that no catalogue is ranked: the
   share n / I of them with the best scores is a uniform sample of the top n. Ports rank all items once an epoch.
2. The ports' exponential kernel is flat, exp(-(k+1)/60000) over 3,000 places; what makes their draws favour
   the top is (4). ``kernel="exponential"`` is (3), without replacement.
3. Scores of a generative teacher are no logits: ``standardise=True`` brings them to mean 0 and deviation 1 over
   a row's list. An item outside the list lies `gap` below its worst.
4. The ports add 1e-10 inside the logarithm, which biases (1) and kills gradients. No switch.
5. ``reduction="sum"`` adds up (1) over A, as the ports do; their lambda is meant for that.
6. The paper draws unobserved items only: ``exclude_history=True``. The target is never in A.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.draws import draw_columns, draw_items
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import one_of, positive
from recdistill.strategies.teacher_lists import TeacherList, teacher_list, unwanted_items
from recdistill.strategies.teacher_scores import Source, TeacherScores
from recdistill.strategies.weights import divided
from recdistill.types import PAD, Batch, StudentOutput, Task


class CD(ListStrategy):
    """Collaborative Distillation, eq. (1).

    Parameters
    ----------
    guide
        ``"teacher"`` or ``"student"``: whose ranking the items are drawn from.
    samples
        \\|A\\|, items a row, at least 1.
    kernel
        ``"best_of_two"`` (4) or ``"exponential"`` (3).
    temperature
        lambda > 0 of (3), in places.
    scale, shift
        t1 > 0 and t2 of (2).
    pool
        n, how far down the guide's ranking goes.
    candidates
        Random items from which the student's ranking is estimated; the whole catalogue where it is smaller.
    teacher_scores, standardise, gap
        Where t comes from, see `TeacherScores`.
    reduction
        ``"mean"`` or ``"sum"`` over A.
    exclude_history
        Whether items of the history leave A.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    def __init__(
        self,
        *,
        guide: Literal["teacher", "student"] = "teacher",
        samples: int = 50,
        kernel: Literal["best_of_two", "exponential"] = "best_of_two",
        temperature: float = 100.0,
        scale: float = 2.0,
        shift: float = 0.0,
        pool: int = 3000,
        candidates: int = 1024,
        teacher_scores: Source = "list",
        standardise: bool = True,
        gap: float = 1.0,
        reduction: Literal["mean", "sum"] = "mean",
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("guide", guide, ("teacher", "student"))
        one_of("kernel", kernel, ("best_of_two", "exponential"))
        one_of("reduction", reduction, ("mean", "sum"))
        positive(samples=samples, temperature=temperature, scale=scale, pool=pool, candidates=candidates)
        self.guide, self.samples, self.kernel, self.temperature = guide, samples, kernel, temperature
        self.scale, self.shift, self.pool, self.candidates = scale, shift, pool, candidates
        self.reduction, self.exclude_history = reduction, exclude_history
        self.teacher_scores, self.standardise, self.gap = teacher_scores, standardise, gap
        self.teacher = TeacherScores(teacher_scores, standardise=standardise, gap=gap)
        self.requires = self.teacher.requires

    def prepare(self, task: Task) -> None:
        """Take the teacher's item vectors where scores come from them."""
        self.teacher.prepare(task)

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        listed = teacher_list(batch, self.pool, exclude_target=True, exclude_history=self.exclude_history)
        items = self.draw(output, batch, listed)  # (S, m), PAD where nothing was drawn
        if self.teacher.source == "list":  # of a cold item that it does not list the teacher says nothing
            items = items.masked_fill(output.is_cold(items) & (place_in(listed.items, items) == PAD), PAD)
        mask = (items != PAD) & listed.mask.any(1, keepdim=True)
        labels = torch.sigmoid((self.teacher(batch, items) + self.shift) / self.scale)  # (S, m)
        scores = output.scores(items).float()
        terms = binary_cross_entropy_with_logits(scores, labels, reduction="none")
        sums = terms.masked_fill(~mask, 0.0).sum(1)
        return sums if self.reduction == "sum" else divided(sums, mask.sum(1).float())

    @torch.no_grad()
    def draw(self, output: StudentOutput, batch: Batch, listed: TeacherList) -> Tensor:
        """Return ``(S, m)``, the items A of each row, `PAD` where one could not be drawn."""
        unwanted = unwanted_items(batch, target=True, history=self.exclude_history)
        if self.guide == "student":
            items = self._from_student(output)
            return items.masked_fill(place_in(unwanted, items) != PAD, PAD)
        inside = self._from_list(listed, -(-self.samples // 2))
        banned = torch.cat([listed.items, unwanted], dim=1)
        outside = draw_items(output.item_table.shape[0], self.samples // 2, banned)
        return torch.cat([inside, outside], dim=1)

    def _from_list(self, listed: TeacherList, n: int) -> Tensor:
        if self.kernel == "exponential":
            weights = (-listed.places / self.temperature).masked_fill(~listed.mask, -torch.inf)
            columns, drawn = draw_columns(weights, n)
            return listed.items.gather(1, columns).masked_fill(~drawn, PAD)
        lengths = listed.mask.sum(1, keepdim=True)  # (S, 1)
        order = (~listed.mask).sort(dim=1, stable=True).indices  # columns of the list, in its order
        places = best_of_two(lengths, n)
        return listed.items.gather(1, order.gather(1, places)).masked_fill(lengths == 0, PAD)

    def _from_student(self, output: StudentOutput) -> Tensor:
        item_count, rows = output.item_table.shape[0], len(output.hidden)
        count = min(self.candidates, item_count)
        candidates = torch.randperm(item_count, device=output.hidden.device)[:count]  # (c,)
        scores = output.hidden @ output.vectors(candidates).T  # (S, c)
        if output.item_bias is not None:
            scores = scores + output.item_bias[candidates]
        best = min(count, max(1, math.ceil(count * self.pool / item_count)))
        ranking = candidates[scores.float().topk(best, dim=1).indices]  # (S, n), best first
        if self.kernel == "best_of_two":
            lengths = torch.full((rows, 1), best, device=ranking.device)
            return ranking.gather(1, best_of_two(lengths, self.samples))
        places = torch.arange(best, device=ranking.device) * (item_count / count)  # in the whole catalogue
        columns, _ = draw_columns((-places / self.temperature).expand(rows, -1), self.samples)
        return ranking.gather(1, columns)


def best_of_two(lengths: Tensor, n: int) -> Tensor:
    """Return ``(S, n)`` places, each the better of two uniform draws below the row's ``(S, 1)`` length."""
    draws = torch.rand(2, len(lengths), n, device=lengths.device) * lengths
    return draws.amin(0).long().minimum((lengths - 1).clamp_min(0))
