"""Importance-aware ranking distillation of DLLM2Rec, Cui et al., RecSys 2024.
https://arxiv.org/abs/2405.00338

The student learns to rank the teacher's top K high, most of all where the teacher is likely to be right. With
f the student's scores, O^T and O^S the top K of teacher and student, d the teacher's distances:

(5)   L_d     = - sum_s sum_{i in O^T} w_si log sigmoid(f_si)
(6)   w^p_si  ~ exp(-r_i / beta)                        position: r_i = 1 .. K in the teacher's list
(7)   w^c_si  ~ exp(-d_si* / beta)                      confidence: distance to the row's true item i*
(8)   w^o_si  = 1 if i in O^T and O^S, else 0           consistency: teacher and student agree
(10)  w_si    = gamma_p w^p_si + gamma_c w^c_si + gamma_o w^o_si

=============  ====================  =======  ========================  ====================================
symbol         name in code          shape    default                   where the default comes from
=============  ====================  =======  ========================  ====================================
K              k                              10                        the paper, section 4.1.4
gamma_p        gamma_position                 0.3                       the paper, section 4.1.4
gamma_c        gamma_confidence               0.5                       the paper, section 4.1.4
gamma_o        gamma_consistency              0.1                       the paper, section 4.1.4
beta           beta_position                  1.0                       the paper; fixed in the code
beta           beta_confidence                1.0                       the paper; fixed in the code
w              weights               (S, W)
alpha          dros_weight                    0                         the code: that of its DROS loss
.              variant                        paper                     fills every option that is None
=============  ====================  =======  ========================  ====================================

Where the authors' code differs
``variant`` fills every option below that is None: with the paper's value, the code's, or a corrected one.
1. confidence: target | candidate | target. The code reads the distance of each listed item, not that of the
   true one: a second position weight, which says nothing about the teacher's reliability.
2. confidence_scaled: False | False | True. Raw distances of 30 give weight 0 to every row. True divides d by
   its median over the training rows, and w^c by its mean over the batch. (The code's w^c of the candidates
   is normalised within a row.)
3. normalise: none | row | batch. The code divides w by its row sum, so that a row the teacher got wrong
   counts as much as any other. ``batch`` divides by the mean row sum: lambda_d keeps its meaning, rows keep
   their weight.
4. position_normalised: False | True | True. The weights w^p of a list sum to 1, as in RD.
5. negative: none | shifted | true. The code adds -log sigmoid(1 - f_neg), weighted by w, for a sampled item;
   meant is -log(1 - sigmoid(f_neg)). Of several negatives the mean counts. A batch without negatives has no
   such term: losses over the whole catalogue, which draw none, push down by themselves.
6. exclude_teacher: False | False | True. A sampled item that the teacher lists is no negative.
7. dros_weight: 0 in all. The code adds alpha times the DROS term of each listed item; to do as it does,
   set it to the loss's alpha.
8. official_broadcast: False in all. The code multiplies (B, 1) weights by (B,) DROS terms into (B, B): each
   place of the list counts its mean weight times its mean term, for all rows alike. True does the same.
9. distance_power: 1 in all. The paper squares L2 distances, the code does not. Stored is what the teacher
   measured; 2 squares it.
10. No switch: its w^o has 1e-8 added, which changes nothing; its log(sigmoid(x)) is infinite below x = -88,
    here softplus; its argsort is a top-K search; its beta is 1 (its ``--beta`` is the radius of DROS).
11. No switch: a row without a distance to its target has confidence 0; the code has no such rows.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recdistill.errors import KnowledgeError
from recdistill.losses.dros import dros_terms, propensity_scores
from recdistill.strategies.base import ListStrategy
from recdistill.strategies.options import not_negative, one_of, positive
from recdistill.strategies.student_lists import student_top_items
from recdistill.strategies.teacher_lists import TeacherList, contained, teacher_list
from recdistill.strategies.weights import divided, position_weights
from recdistill.types import PAD, Batch, KnowledgeRows, StudentOutput, Task

Variant = Literal["paper", "official", "corrected"]
Confidence = Literal["target", "candidate"]
Normalise = Literal["none", "row", "batch"]
Negative = Literal["none", "shifted", "true"]

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "paper": {
        "confidence": "target",
        "confidence_scaled": False,
        "position_normalised": False,
        "normalise": "none",
        "negative": "none",
        "exclude_teacher": False,
    },
    "official": {
        "confidence": "candidate",
        "confidence_scaled": False,
        "position_normalised": True,
        "normalise": "row",
        "negative": "shifted",
        "exclude_teacher": False,
    },
    "corrected": {
        "confidence": "target",
        "confidence_scaled": True,
        "position_normalised": True,
        "normalise": "batch",
        "negative": "true",
        "exclude_teacher": True,
    },
}
_FLOOR = 1e-8  # the code adds it to exp(-d): where all distances are large the weights become equal
_SMALLEST_SCALE = 1e-6


class Importance(ListStrategy):
    """Importance-aware ranking distillation, eq. (5) to (10).

    Parameters
    ----------
    variant
        ``"paper"``, ``"official"`` or ``"corrected"``: fills the options below that are None.
    k
        Length of both lists, at least 1.
    gamma_position, gamma_confidence, gamma_consistency
        Weights of (6), (7), (8), at least 0; 0 is the ablation of Table 7.
    beta_position, beta_confidence
        beta of (6) and (7), above 0.
    confidence, confidence_scaled, position_normalised, normalise, negative, exclude_teacher
        Differences 1 to 6 above.
    distance_power
        Power > 0 of the stored distances before (7).
    dros_weight, dros_radius, official_broadcast
        alpha >= 0 and beta > 0 of the DROS term of each listed item, and difference 8. `dros_radius` must be
        the radius of the loss if that is DROS, as both share one log-sum-exp.
    exclude_target, exclude_history
        Whether these items leave the list before it is cut to K; the authors keep both.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    propensity: Tensor

    def __init__(
        self,
        *,
        variant: Variant = "paper",
        k: int = 10,
        gamma_position: float = 0.3,
        gamma_confidence: float = 0.5,
        gamma_consistency: float = 0.1,
        beta_position: float = 1.0,
        beta_confidence: float = 1.0,
        confidence: Confidence | None = None,
        confidence_scaled: bool | None = None,
        position_normalised: bool | None = None,
        normalise: Normalise | None = None,
        negative: Negative | None = None,
        exclude_teacher: bool | None = None,
        distance_power: float = 1.0,
        dros_weight: float = 0.0,
        dros_radius: float = 1.0,
        official_broadcast: bool = False,
        exclude_target: bool = False,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        one_of("variant", variant, tuple(VARIANTS))
        positive(
            k=k,
            beta_position=beta_position,
            beta_confidence=beta_confidence,
            distance_power=distance_power,
            dros_radius=dros_radius,
        )
        not_negative(
            gamma_position=gamma_position,
            gamma_confidence=gamma_confidence,
            gamma_consistency=gamma_consistency,
            dros_weight=dros_weight,
        )
        filled = VARIANTS[variant]
        self.confidence: str = confidence or filled["confidence"]
        self.normalise: str = normalise or filled["normalise"]
        self.negative: str = negative or filled["negative"]
        self.confidence_scaled: bool = _given(confidence_scaled, filled["confidence_scaled"])
        self.position_normalised: bool = _given(position_normalised, filled["position_normalised"])
        self.exclude_teacher: bool = _given(exclude_teacher, filled["exclude_teacher"])
        one_of("confidence", self.confidence, ("target", "candidate"))
        one_of("normalise", self.normalise, ("none", "row", "batch"))
        one_of("negative", self.negative, ("none", "shifted", "true"))
        self.variant, self.k = variant, k
        self.gamma_position, self.gamma_confidence = gamma_position, gamma_confidence
        self.gamma_consistency = gamma_consistency
        self.beta_position, self.beta_confidence = beta_position, beta_confidence
        self.distance_power = distance_power
        self.dros_weight, self.dros_radius, self.official_broadcast = (
            dros_weight,
            dros_radius,
            official_broadcast,
        )
        self.exclude_target, self.exclude_history = exclude_target, exclude_history
        self.distance_scale = 1.0
        self._distances = "target_distance" if self.confidence == "target" else "ranking_distance"
        self.requires = frozenset({"ranking", self._distances} if gamma_confidence else {"ranking"})
        self.register_buffer("propensity", torch.empty(0), persistent=False)

    def prepare(self, task: Task) -> None:
        """Take the median distance, and the items' propensity where the DROS term needs it.

        Raises
        ------
        KnowledgeError
            The distances must be scaled and their median is unknown.
        """
        if self.confidence_scaled and self.gamma_confidence:
            if self._distances not in task.scales:
                raise KnowledgeError(
                    f"the median of {self._distances!r} is unknown; confidence_scaled=True divides by it. "
                    "Allowed: knowledge with that field, or confidence_scaled=False. "
                    "See what a folder holds with: recdistill knowledge show DIR"
                )
            self.distance_scale = max(task.scales[self._distances] ** self.distance_power, _SMALLEST_SCALE)
        if self.dros_weight:
            self.propensity = propensity_scores(task.popularity).to(self.propensity.device)

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (5) of each row, with the terms of differences 5 and 7 where they are on."""
        listed = teacher_list(
            batch, self.k, exclude_target=self.exclude_target, exclude_history=self.exclude_history
        )
        weights = self.weights(output, batch, listed)  # (S, W)
        rows = (weights * softplus(-output.scores(listed.items).float())).sum(1)
        if self.negative != "none" and batch.negatives is not None:
            rows = rows + weights.sum(1) * self._negatives(output, batch.negatives, listed)
        if self.dros_weight:
            terms = dros_terms(output, listed.items, self.propensity, self.dros_radius).float()
            shares = weights.mean(0) if self.official_broadcast else weights
            rows = rows + self.dros_weight * (shares * terms).sum(1)
        return rows

    @torch.no_grad()
    def weights(self, output: StudentOutput, batch: Batch, listed: TeacherList) -> Tensor:
        """Return ``(S, W)`` float32, eq. (10), 0 outside the list, normalised as `normalise` says."""
        weights = torch.zeros_like(listed.items, dtype=torch.float32)
        if self.gamma_position:
            position = position_weights(listed, self.beta_position, normalised=self.position_normalised)
            weights = weights + self.gamma_position * position
        if self.gamma_confidence and batch.knowledge is not None:
            weights = weights + self.gamma_confidence * self._confidence(batch.knowledge, listed)
        if self.gamma_consistency:
            weights = weights + self.gamma_consistency * self._consistency(output, listed)
        weights = weights * listed.mask
        sums = weights.sum(1, keepdim=True)  # (S, 1)
        if self.normalise == "row":
            return divided(weights, sums)
        return divided(weights, _mean_of_known(sums)) if self.normalise == "batch" else weights

    def _confidence(self, knowledge: KnowledgeRows, listed: TeacherList) -> Tensor:
        """Return w^c: ``(S, 1)`` from the target's distance, or ``(S, W)`` from those of the listed items."""
        beta = self.beta_confidence * self.distance_scale
        if self.confidence == "target":
            distance = _field(knowledge.target_distance, "target_distance").unsqueeze(1)  # (S, 1)
            known = ~distance.isnan() & knowledge.covered.unsqueeze(1)
            weights = torch.exp(-distance.float().pow(self.distance_power) / beta).masked_fill(~known, 0.0)
            return divided(weights, _mean_of_known(weights)) if self.confidence_scaled else weights
        distance = _field(knowledge.ranking_distance, "ranking_distance")[:, : listed.items.shape[1]]
        weights = torch.exp(-distance.float().pow(self.distance_power) / beta) + _FLOOR
        weights = weights.masked_fill(~listed.mask, 0.0)
        return divided(weights, weights.sum(1, keepdim=True))

    def _consistency(self, output: StudentOutput, listed: TeacherList) -> Tensor:
        """Return w^o ``(S, W)``, eq. (8)."""
        own = student_top_items(output, self.k)  # (S, K)
        return contained(listed.items, own).float()

    def _negatives(self, output: StudentOutput, negatives: Tensor, listed: TeacherList) -> Tensor:
        """Return ``(S,)``, the mean loss of a row's sampled negatives."""
        losses = softplus(
            output.scores(negatives).float() - (1.0 if self.negative == "shifted" else 0.0)
        )  # (S, n)
        if not self.exclude_teacher:
            return losses.mean(1)
        allowed = ~contained(negatives, listed.items.masked_fill(~listed.mask, PAD))  # (S, n)
        return divided((losses * allowed).sum(1), allowed.sum(1).float())


def _mean_of_known(values: Tensor) -> Tensor:
    """Return the mean of the positive entries of ``(S, 1)``: rows without knowledge are 0 and not counted."""
    return values.sum() / (values > 0).sum().clamp_min(1)


def _given(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _field(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise KnowledgeError(
            f"the batch carries no {name!r}, which the confidence weight needs. Allowed: knowledge with that "
            "field, or gamma_confidence=0. Make it with: recdistill teach graph --dataset DIR --out DIR"
        )
    return value
