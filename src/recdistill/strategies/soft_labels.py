"""Soft labels: the student learns the teacher's distribution over items. Hinton et al., 2015,
https://arxiv.org/abs/1503.02531; between a language model and a recommender: LLMD4Rec, 2025,
https://arxiv.org/abs/2505.18120 (its student half, without weights of the rows).

With f the student's scores, P the teacher's probabilities, T a temperature and M the length of the list:

(1)  L = T^2 KL( softmax(t / T) || softmax(u / T) )
(2)  t = (log P_1 .. log P_M, log(1 - sum_m P_m))            the list, and all other items as one
(3)  u = (f_1 .. f_M, log sum_{i not listed} exp f_i)        the same of the student

=============  ==================  =======  =================  ======================================
symbol         name in code        shape    default            where the default comes from
=============  ==================  =======  =================  ======================================
T              temperature                  2                  ours
M              k                            200                ours: what a teacher stores
t              teacher             (S, M+1) log_probabilities  what the library's teachers measure
u              support             (S, M+1) catalogue          ours
.              scale                        median             ours
=============  ==================  =======  =================  ======================================

Kinds of teacher
1. ``"log_probabilities"``: distances are -log P over the whole catalogue (``distance`` in the manifest:
   ``negative_log_probability``). What they leave of 1 is the last entry of (2).
2. ``"distances"``: t = -distance / scale over the list alone, ``support="list"``: of other items nothing is known.
3. ``"dot"``, ``"cosine"``, ``"l2"``, ``"squared_l2"``: t = score / scale of every item, from the vectors of
   rows and items; then u = f, over the whole catalogue, and no list is read.

``support="list"`` leaves the last entries of (2) and (3) out: the order and spacing within the list is all that is
learned, no pass over the catalogue is needed, and the student's own loss alone pushes other items down.

At T = 1, (1) is at most the divergence over all items, and equals it at M = I. At another T it is 0 if and only
if student and teacher agree on the list and on the rest as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies.base import ListStrategy
from recdistill.strategies.catalogue import catalogue_divergence, catalogue_list
from recdistill.strategies.listwise import NOTHING
from recdistill.strategies.options import one_of, positive
from recdistill.strategies.teacher_lists import TeacherList, teacher_list
from recdistill.strategies.teacher_scores import TeacherScores
from recdistill.types import PAD, Batch, StudentOutput, Task

Teacher = Literal["log_probabilities", "distances", "dot", "cosine", "l2", "squared_l2"]
#: Where `SoftLabels.count_ranks` leaves ``(S,)`` 1-based pessimistic ranks, see `StudentOutput.shared`.
TARGET_RANKS: Final = "target_ranks"
_VECTORS: Final = ("dot", "cosine", "l2", "squared_l2")
_SURE = -1e-7  # the largest log-probability of a whole list: what is left of 1 has a logarithm
_TOLERANCE = 1e-3  # by which the probabilities of a list may exceed 1


class SoftLabels(ListStrategy):
    """Divergence from the teacher's distribution, eq. (1).

    Parameters
    ----------
    teacher
        ``"log_probabilities"``, ``"distances"``, or how vectors are compared: what t is.
    temperature
        T > 0.
    k
        M, at least 1: how much of the list is read.
    support
        ``"catalogue"`` or ``"list"``: whether the rest of the catalogue counts.
    scale
        By what distances or scores of vectors are divided, above 0, or None: the median of the listed
        distances; 1 for vectors.

    Raises
    ------
    ConfigError
        A value is outside its range, or distances are to be compared over the catalogue.
    """

    def __init__(
        self,
        *,
        teacher: Teacher = "log_probabilities",
        temperature: float = 2.0,
        k: int = 200,
        support: Literal["catalogue", "list"] = "catalogue",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        one_of("teacher", teacher, ("log_probabilities", "distances", *_VECTORS))
        one_of("support", support, ("catalogue", "list"))
        positive(temperature=temperature, k=k, scale=1.0 if scale is None else scale)
        if teacher == "distances" and support == "catalogue":
            raise ConfigError(
                "teacher='distances' says nothing of items outside the list, and support is 'catalogue'. "
                "Allowed: teacher=distances with support=list. Set soft_labels.support=list"
            )
        self.teacher, self.temperature, self.k, self.support = teacher, temperature, k, support
        self.scale = scale
        self.vectors = TeacherScores(teacher, standardise=False) if teacher in _VECTORS else None
        fields = {"ranking", "ranking_distance"}
        self.requires = frozenset({"query_embeddings", "item_embeddings"} if self.vectors else fields)
        self._checked = self._count_ranks = False

    def count_ranks(self) -> None:
        """From now on leave the targets' ranks with the student's answer, under `TARGET_RANKS`, where all is scored."""
        self._count_ranks = True

    def prepare(self, task: Task) -> None:
        """Take the teacher's item vectors, or the median of the distances, where they are needed."""
        if self.vectors is not None:
            self.vectors.prepare(task)
        if self.teacher == "distances" and self.scale is None:
            self.scale = task.scales.get("ranking_distance") or 1.0

    def on_epoch(self, epoch: int) -> None:
        """Look at the probabilities of the next batch anew."""
        self._checked = False

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        if self.vectors is not None:
            return self._over_catalogue(output, batch, self.vectors)
        listed = teacher_list(batch, self.k, exclude_target=False, exclude_history=False)
        teacher, mask = self._teacher(batch, listed), listed.mask
        if self.support == "list":
            student = output.scores(listed.items).float()  # (S, M)
        else:
            student, rest = self._list_and_rest(output, batch, listed.items.masked_fill(~mask, PAD))
            student = torch.cat([student, rest.unsqueeze(1)], dim=1)  # (S, M + 1)
            some = mask.any(1) & (rest > NOTHING / 2)  # a list can hold the whole catalogue
            mask = torch.cat([mask, some.unsqueeze(1)], dim=1)
        return self.temperature**2 * divergence(teacher, student, mask, self.temperature)

    def _list_and_rest(self, output: StudentOutput, batch: Batch, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return u of eq. (3) in its two parts; ranks that are counted on the way are left with `output`."""
        targets = batch.targets if self._count_ranks else None
        student, rest, ranks = catalogue_list(output, items, targets)
        if ranks is not None:
            output.shared(TARGET_RANKS, lambda: ranks)
        return student, rest

    @torch.no_grad()
    def _teacher(self, batch: Batch, listed: TeacherList) -> Tensor:
        """Return t ``(S, M)``, or ``(S, M + 1)`` where the rest counts."""
        known = batch.knowledge
        if known is None or known.ranking_distance is None:
            raise KnowledgeError(
                "the batch carries no 'ranking_distance', which soft labels are made of. Allowed: knowledge with "
                "that field, or teacher=dot with vectors. Make it with: recdistill teach graph --dataset DIR --out DIR"
            )
        logs = -known.ranking_distance[:, : listed.items.shape[1]].float()  # (S, M)
        logs = logs.masked_fill(~listed.mask, NOTHING)
        if self.teacher == "distances":
            return logs / (self.scale or 1.0)
        whole = logs.logsumexp(1, keepdim=True)  # (S, 1)
        self._check(whole)
        if self.support == "list":
            return logs
        rest = torch.log(-torch.expm1(whole.clamp_max(_SURE)))
        return torch.cat([logs, rest], dim=1)

    def _check(self, whole: Tensor) -> None:
        """Refuse probabilities that add up to more than 1; looked at once an epoch."""
        if self._checked or not len(whole):
            return
        self._checked = True
        most = float(whole.amax().exp())
        if most > 1 + _TOLERANCE:
            raise KnowledgeError(
                f"the listed probabilities of a row add up to {most:.3g}: its distances are no negative "
                "log-probabilities. Allowed: at most 1, or soft_labels.teacher=distances with "
                "soft_labels.support=list. See how distances were measured with: recdistill knowledge show DIR"
            )

    def _over_catalogue(self, output: StudentOutput, batch: Batch, vectors: TeacherScores) -> Tensor:
        known = batch.knowledge
        if known is None:
            raise KnowledgeError("the batch carries no knowledge. Pass --knowledge DIR.")
        covered = known.covered.nonzero().squeeze(1)  # (s,)
        queries = vectors.queries(known)[covered]  # (s, D)
        scale = self.scale or 1.0
        values = catalogue_divergence(
            replace(output, hidden=output.hidden[covered], _memo={}),
            lambda rows: vectors.catalogue(queries[rows]) / scale,
            self.temperature,
        )
        return self.temperature**2 * values.new_zeros(len(known.covered)).index_put((covered,), values)


def divergence(teacher: Tensor, student: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Return ``(S,)``, KL(softmax(teacher / T) || softmax(student / T)) over the masked columns; 0 without any."""
    goal = (teacher / temperature).masked_fill(~mask, NOTHING).log_softmax(1)
    guess = (student / temperature).masked_fill(~mask, NOTHING).log_softmax(1)
    return (goal.exp() * (goal - guess)).masked_fill(~mask, 0.0).sum(1)
