"""RCE-KD: Rejuvenated Cross-Entropy for Knowledge Distillation, ICLR 2026. https://arxiv.org/abs/2509.20989

Cross-entropy against the teacher on a few items bounds NDCG only if that set holds whatever the student ranks above
its members. The teacher's top items alone do not. RCE-KD takes two sets that nearly do. With f the student's and t
the teacher's scores, Q^S and Q^T the top K of student and teacher:

(1)  CE(J) = - sum_{i in J} softmax_J(t / tau)_i log softmax_J(f / tau)_i
(2)  L = (1 - gamma) CE(Q^S) + gamma CE(A | (Q^T - A - Q^S))
(3)  gamma = exp(-beta |Q^T & A| / K)
(4)  A: m items of the student's top n, p_j ~ exp((min(c_j, 50) + 1) / T), c_j the number of the teacher's top
     items at the place j of the student's ranking or below it

=============  ==================  =======  ===========  =============================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =============================================
K              k                            50           the authors' code: 50 to 100
m              samples                      50           the authors' code: 50 to 100
n              pool                         200          the authors' code: 200 to 500
T              sharpness                    10           the authors' code
beta           beta                         3            the authors' code: 1 to 5
tau            temperature                  1            the authors' code: 1 to 10
t              `TeacherScores`     (S, .)   from a list  theirs scores any item, see difference 1
=============  ==================  =======  ===========  =============================================

Where the authors' code differs
1. Its teacher scores every item. A list scores the items in it; any other lies `gap` below the worst.
   ``teacher_scores="dot"`` (``cosine``, ``l2``, ``squared_l2``) scores all from vectors. Scores are brought to
   mean 0 and deviation 1 over a row's list (``standardise=True``): theirs are logits, distances are not.
2. It ranks all items once an epoch; here the student's top n of this step.
3. It exponentiates scores as they are. Here log-sum-exp. No switch.
4. It sums over rows; here the mean. Its lambda of 5 to 1e5 is for the sum.
5. Its prose has |Q^T & Q^S| in (3), its code what (3) says. As the code.
6. Observed items are in no set of theirs: ``exclude_target=True``, ``exclude_history=True``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.draws import draw_columns
from recdistill.strategies.listwise import NOTHING
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import not_negative, positive
from recdistill.strategies.student_lists import student_top_list
from recdistill.strategies.teacher_lists import teacher_list, unwanted_items
from recdistill.strategies.teacher_scores import Source, TeacherScores
from recdistill.types import PAD, Batch, StudentOutput, Task

_MOST = 50  # of the teacher's items below that count in (4)


class RCE(ListStrategy):
    """Rejuvenated cross-entropy, eq. (2).

    Parameters
    ----------
    k
        K, at least 1.
    samples
        m, at least 1.
    pool
        n, length of the student's list that A is drawn from.
    sharpness
        T > 0 of (4): the larger, the flatter.
    beta
        beta >= 0 of (3).
    temperature
        tau > 0 of (1).
    teacher_scores, standardise, gap
        Where t comes from, see `TeacherScores`.
    exclude_target, exclude_history
        Whether these items are in no set.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    def __init__(
        self,
        *,
        k: int = 50,
        samples: int = 50,
        pool: int = 200,
        sharpness: float = 10.0,
        beta: float = 3.0,
        temperature: float = 1.0,
        teacher_scores: Source = "list",
        standardise: bool = True,
        gap: float = 1.0,
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        positive(k=k, samples=samples, pool=pool, sharpness=sharpness, temperature=temperature)
        not_negative(beta=beta)
        self.k, self.samples, self.pool, self.sharpness = k, samples, pool, sharpness
        self.beta, self.temperature = beta, temperature
        self.exclude_target, self.exclude_history = exclude_target, exclude_history
        self.teacher_scores, self.standardise, self.gap = teacher_scores, standardise, gap
        self.teacher = TeacherScores(teacher_scores, standardise=standardise, gap=gap)
        self.requires = self.teacher.requires

    def prepare(self, task: Task) -> None:
        """Take the teacher's item vectors where scores come from them."""
        self.teacher.prepare(task)

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (2) of each row."""
        own, others, gamma = self.sets(output, batch)
        items = torch.cat([own, others], dim=1)  # (S, n)
        teacher, student, split = self.teacher(batch, items), output.scores(items).float(), own.shape[1]
        on_own = self.cross_entropy(teacher[:, :split], student[:, :split], own != PAD)
        on_others = self.cross_entropy(teacher[:, split:], student[:, split:], others != PAD)
        return (1 - gamma) * on_own + gamma * on_others

    @torch.no_grad()
    def sets(self, output: StudentOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q^S and A | (Q^T - A - Q^S), ``(S, .)`` with `PAD` where there is nothing, and gamma ``(S,)``."""
        listed = teacher_list(
            batch, self.k, exclude_target=self.exclude_target, exclude_history=self.exclude_history
        )
        top = listed.items.masked_fill(~listed.mask, PAD)  # (S, W), Q^T
        unwanted = unwanted_items(batch, target=self.exclude_target, history=self.exclude_history)
        spare = unwanted.shape[1]
        ranking = student_top_list(output, max(self.pool, self.k) + spare)  # (S, n + spare)
        allowed = (place_in(unwanted, ranking) == PAD) & listed.mask.any(1, keepdim=True)
        if self.teacher_scores == "list":  # of a cold item that it does not list the teacher says nothing
            allowed &= ~output.is_cold(ranking) | (place_in(top, ranking) != PAD)
        place = allowed.cumsum(1) - 1
        own = ranking.masked_fill(~allowed | (place >= self.k), PAD)[:, : self.k + spare]
        allowed &= place < self.pool
        weights = self.log_weights((place_in(top, ranking) != PAD) & allowed)
        columns, drawn = draw_columns(weights.masked_fill(~allowed, -torch.inf), self.samples)
        sampled = ranking.gather(1, columns).masked_fill(~drawn, PAD)
        in_sample = place_in(sampled, top) != PAD
        missed = top.masked_fill(in_sample | (place_in(own, top) != PAD), PAD)
        gamma = torch.exp(-self.beta * in_sample.sum(1) / listed.mask.sum(1).clamp_min(1))
        return own, torch.cat([sampled, missed], dim=1), gamma

    def log_weights(self, flags: Tensor) -> Tensor:
        """Return ``(S, n)``, the logarithm of p_j of (4) up to a constant; `flags`: is a teacher's top item at j."""
        below = flags.flip(1).cumsum(1).flip(1)  # c_j
        return (below.clamp_max(_MOST) + 1) / self.sharpness

    def cross_entropy(self, teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
        """Return ``(S,)``, eq. (1) over the masked items; 0 where there are none."""
        goal = (teacher / self.temperature).masked_fill(~mask, NOTHING).softmax(1)
        guess = (student / self.temperature).masked_fill(~mask, NOTHING).log_softmax(1)
        return -(goal * guess).masked_fill(~mask, 0.0).sum(1)
