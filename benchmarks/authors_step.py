"""The yardstick: one DLLM2Rec training step as the authors' program does it, written anew from a description.

Nothing here is copied. It repeats what is computed and, on purpose, how: where the authors' step loses its
time, this one loses it too. The library computes the same loss and gradients another way (`bench_step.py`
checks that in the same run). What is repeated, and why it is slow:

1. the propensity is a numpy array, so float64, and every ``(B, I)`` tensor of the DRO term becomes float64;
2. the DRO term is computed anew for each of the K candidates, three ``(B, I)`` products at a time;
3. the student's top K comes from a full sort of ``(B, I)``;
4. one negative a row is drawn by `multinomial` from a dense ``(B, I + 1)`` mask;
5. the last position is taken by a Python loop over the rows, after all positions went through the block;
6. the teacher's ``(B, L, D)`` vectors are gathered by a boolean mask and then projected;
7. a batch is `DataFrame.sample` and `to_dict`: independent draws, so an "epoch" sees 63 % of the rows.

Two mistakes are part of the objective and repeated as well, because "the same loss" means theirs:

* the weight of a candidate ``(B, 1)`` meets its DRO term ``(B,)``: the product is ``(B, B)`` and its mean is
  mean(w) * mean(l), so a row's own weight has no effect on that half of the loss;
* the candidates' negative term is log(sigmoid(1 - f)), not log(1 - sigmoid(f)).

Padding is on the right with id I. Adam as in the authors' program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -(2.0**32)


@dataclass(frozen=True)
class AuthorsSetting:
    """Numbers of the step; the defaults are those of the paper and the authors' README."""

    alpha: float = 0.5
    beta: float = 1.0
    inject_weight: float = 0.3
    distil_weight: float = 0.7
    candidates: int = 10
    gamma_position: float = 0.3
    gamma_confidence: float = 0.5
    gamma_overlap: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6


@dataclass(frozen=True)
class AuthorsBatch:
    """What the step reads: sequences ``(B, L)``, lengths, targets, negatives ``(B,)``, lists ``(B, K)``."""

    sequences: Tensor
    lengths: Tensor
    targets: Tensor
    negatives: Tensor
    ranking: Tensor
    distance: Tensor


class AuthorsSASRec(nn.Module):
    """One block, one head; keys and values from the raw input; untied head with bias over all items."""

    def __init__(
        self,
        item_count: int,
        teacher_items: Tensor,
        *,
        size: int = 64,
        length: int = 10,
        dropout: float = 0.1,
        inject_weight: float = 0.3,
    ) -> None:
        super().__init__()
        self.item_count = item_count
        self.inject_weight = inject_weight
        self.items = nn.Embedding(item_count + 1, size)
        nn.init.normal_(self.items.weight, 0.0, 0.01)
        self.places = nn.Embedding(length, size)
        self.register_buffer("teacher_items", teacher_items, persistent=False)  # (I, D)
        self.projector = nn.Linear(teacher_items.shape[1], size)
        self.norm_attention, self.norm_feedforward, self.norm_last = (nn.LayerNorm(size) for _ in range(3))
        self.norm_inner = nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.expand, self.contract = nn.Conv1d(size, size, 1), nn.Conv1d(size, size, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, item_count)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, I)`` logits after each sequence of ``(B, L)``."""
        valid = sequences != self.item_count  # (B, L)
        embedded = self.items(sequences)  # (B, L, d)
        if self.inject_weight:
            embedded = embedded + self.inject_weight * self.projector(self._teacher_vectors(sequences, valid))
        embedded = embedded + self.places(torch.arange(sequences.shape[1], device=sequences.device))
        mask = valid.unsqueeze(-1).float()  # (B, L, 1)
        embedded = self.dropout(embedded) * mask
        hidden = self._feedforward(self._attention(embedded)) * mask
        hidden = self.norm_last(hidden)  # (B, L, d)
        return self.head(_last_positions(hidden, lengths))

    def _teacher_vectors(self, sequences: Tensor, valid: Tensor) -> Tensor:
        gathered = torch.zeros(*sequences.shape, self.teacher_items.shape[1], device=sequences.device)
        gathered[valid] = self.teacher_items[sequences[valid]]
        return gathered  # (B, L, D)

    def _attention(self, embedded: Tensor) -> Tensor:
        queries = self.norm_attention(embedded)
        product = self.query(queries) @ self.key(embedded).transpose(1, 2)  # (B, L, L)
        product = product / embedded.shape[-1] ** 0.5
        keys_there = torch.sign(embedded.sum(-1).abs()).unsqueeze(1).expand_as(product)
        product = torch.where(keys_there == 0, torch.full_like(product, MASKED), product)
        earlier = torch.tril(torch.ones_like(product))
        product = torch.where(earlier == 0, torch.full_like(product, MASKED), product)
        queries_there = torch.sign(queries.sum(-1).abs()).unsqueeze(-1)
        weights = self.dropout(torch.softmax(product, -1) * queries_there)
        return weights @ self.value(embedded) + queries

    def _feedforward(self, attended: Tensor) -> Tensor:
        entering = self.norm_feedforward(attended)
        inner = F.relu(self.expand(entering.transpose(1, 2)))
        inner = self.dropout(self.contract(inner).transpose(1, 2))
        return self.norm_inner(inner + entering)


def _last_positions(hidden: Tensor, lengths: Tensor) -> Tensor:
    rows = []
    for row in range(hidden.shape[0]):
        rows.append(hidden[row, lengths[row] - 1, :])
    return torch.stack(rows)  # (B, d)


def propensity(counts: Sequence[int] | np.ndarray, power: float = 0.05) -> Tensor:
    """Return the ``(I,)`` float64 propensities ((n + 1) / sum(n + 1)) ** power."""
    smoothed = np.asarray(counts, dtype=np.float64) + 1.0
    return torch.from_numpy((smoothed / smoothed.sum()) ** power)


def draw_rows(frame: pd.DataFrame, size: int) -> tuple[Tensor, Tensor, Tensor, np.ndarray]:
    """Draw a batch as the authors do; return sequences, lengths, targets and the drawn frame index."""
    batch = frame.sample(n=size).to_dict()
    index = list(batch["seq"])
    sequences = torch.LongTensor([list(row) for row in batch["seq"].values()])
    lengths = torch.LongTensor(list(batch["len_seq"].values()))
    targets = torch.LongTensor(list(batch["next"].values()))
    return sequences, lengths, targets, np.asarray(index)


def draw_negatives(sequences: Tensor, targets: Tensor, item_count: int) -> Tensor:
    """Return ``(B,)`` uniform negatives outside history and target, from a dense mask."""
    allowed = torch.ones(len(sequences), item_count + 1)
    allowed.scatter_(1, sequences, 0.0)
    allowed.scatter_(1, targets.unsqueeze(1), 0.0)
    allowed[:, item_count] = 0.0
    return torch.multinomial(allowed, 1).squeeze(1)


def dro_term(logits: Tensor, targets: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Return the ``(B,)`` DRO terms; `weights` is float64, so every ``(B, I)`` tensor here is."""
    column = targets.unsqueeze(1)
    at_target = torch.gather(logits * logits * weights, 1, column).squeeze(1) / beta
    shifted = torch.gather((logits - 1) * (logits - 1) * weights, 1, column).squeeze(1) / beta
    everything = torch.exp(logits * logits * weights / beta).sum(1)
    return torch.log(everything - torch.exp(at_target) + torch.exp(shifted) + 1e-24)


def candidate_weights(logits: Tensor, batch: AuthorsBatch, setting: AuthorsSetting) -> Tensor:
    """Return the ``(B, K)`` weights: position, distance of the candidate, overlap; every row sums to 1."""
    count = setting.candidates
    ranking = batch.ranking[:, :count]
    position = torch.exp(-torch.arange(1, count + 1).float()).repeat(len(ranking), 1)
    position = position / position.sum(1, keepdim=True)
    confidence = torch.exp(-batch.distance[:, :count]) + 1e-8
    confidence = confidence / confidence.sum(1, keepdim=True)
    students = torch.argsort(logits.detach(), dim=1, descending=True)[:, :count]
    overlap = (ranking.unsqueeze(2) == students.unsqueeze(1)).any(2).float() + 1e-8
    weights = (
        setting.gamma_position * position
        + setting.gamma_confidence * confidence
        + setting.gamma_overlap * overlap
    )
    return weights / weights.sum(1, keepdim=True)


def authors_loss(
    model: AuthorsSASRec, batch: AuthorsBatch, weights: Tensor, setting: AuthorsSetting
) -> Tensor:
    """Return the scalar loss of one batch; `weights` are the propensities ``(I,)``."""
    logits = model(batch.sequences, batch.lengths)  # (B, I)
    positive = torch.gather(logits, 1, batch.targets.unsqueeze(1))  # (B, 1)
    negative = torch.gather(logits, 1, batch.negatives.unsqueeze(1))
    labels = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])
    loss = F.binary_cross_entropy_with_logits(torch.cat([positive, negative]), labels)
    if setting.alpha:
        loss = loss + setting.alpha * dro_term(logits, batch.targets, weights, setting.beta).mean()
    if not setting.distil_weight:
        return loss
    importance = candidate_weights(logits, batch, setting)
    distilled, robust = torch.zeros(()), torch.zeros(())
    for place in range(setting.candidates):
        candidate = batch.ranking[:, place]
        score = torch.gather(logits, 1, candidate.unsqueeze(1))
        weight = importance[:, place : place + 1]  # (B, 1)
        pair = -torch.log(torch.sigmoid(score)) - torch.log(torch.sigmoid(1 - negative))
        distilled = distilled + (weight * pair).mean()
        if setting.alpha:
            term = dro_term(logits, candidate, weights, setting.beta)  # (B,)
            robust = robust + (weight * term).mean()  # (B, B): the mistake described above
    return loss + setting.distil_weight * (distilled + setting.alpha * robust)


class AuthorsTrainer:
    """Draws a batch, computes the loss, takes an Adam step: what is timed.

    Parameters
    ----------
    model
        The student.
    frame
        Columns ``seq`` (list of L ids), ``len_seq``, ``next``; its index names the teacher's rows.
    ranking, distance
        ``(N, K)`` the teacher's lists.
    counts
        ``(I,)`` training targets of each item.
    """

    def __init__(
        self,
        model: AuthorsSASRec,
        frame: pd.DataFrame,
        ranking: Tensor,
        distance: Tensor,
        counts: np.ndarray,
        setting: AuthorsSetting,
    ) -> None:
        self.model, self.frame, self.setting = model, frame, setting
        self.ranking, self.distance = ranking, distance
        self.weights = propensity(counts)
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=setting.learning_rate, eps=1e-8, weight_decay=setting.weight_decay
        )

    def step(self, size: int) -> float:
        """Take one step with `size` rows and return its loss."""
        sequences, lengths, targets, index = draw_rows(self.frame, size)
        negatives = draw_negatives(sequences, targets, self.model.item_count)
        batch = AuthorsBatch(
            sequences, lengths, targets, negatives, self.ranking[index], self.distance[index]
        )
        self.optimizer.zero_grad()
        loss = authors_loss(self.model, batch, self.weights, self.setting)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())
