"""The yardstick computes what the description says: the numbers of the spec, and a row-by-row reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from authors_step import (
    AuthorsBatch,
    AuthorsSASRec,
    AuthorsSetting,
    AuthorsTrainer,
    authors_loss,
    candidate_weights,
    draw_negatives,
    dro_term,
    propensity,
)
from synthetic import authors_tables, teacher, windows

ITEMS, LENGTH, SIZE = 23, 4, 6


def small_model(*, inject_weight: float = 0.3) -> AuthorsSASRec:
    torch.manual_seed(0)
    model = AuthorsSASRec(
        ITEMS, torch.randn(ITEMS, 9), size=SIZE, length=LENGTH, dropout=0.0, inject_weight=inject_weight
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.5)
    return model


def small_batch(rows: int = 5) -> AuthorsBatch:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([4, 3, 1, 2, 4])[:rows]
    sequences = torch.randint(0, ITEMS, (rows, LENGTH), generator=generator)
    sequences[torch.arange(LENGTH) >= lengths.unsqueeze(1)] = ITEMS
    ranking = torch.stack([torch.randperm(ITEMS, generator=generator)[:3] for _ in range(rows)])
    distance = torch.rand(rows, 3, generator=generator).cumsum(1)
    targets = torch.randint(0, ITEMS, (rows,), generator=generator)
    return AuthorsBatch(sequences, lengths, targets, (targets + 1) % ITEMS, ranking, distance)


def layer_norm(row: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    normed = (row - row.mean()) / math.sqrt(row.var() + layer.eps)
    return normed * array(layer.weight) + array(layer.bias)


def array(value: Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def affine(row: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    weight = array(layer.weight)
    return (weight[..., 0] if weight.ndim == 3 else weight) @ row + array(layer.bias)


def logits_of_one(model: AuthorsSASRec, items: list[int]) -> np.ndarray:
    """The student's equations for one history without pads, position by position."""
    inputs = [
        array(model.items.weight)[item]
        + model.inject_weight * affine(array(model.teacher_items)[item], model.projector)
        + array(model.places.weight)[place]
        for place, item in enumerate(items)
    ]
    query = layer_norm(inputs[-1], model.norm_attention)
    scores = np.array([affine(query, model.query) @ affine(x, model.key) for x in inputs]) / math.sqrt(SIZE)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    mixed = query + sum(w * affine(x, model.value) for w, x in zip(weights, inputs, strict=True))
    entering = layer_norm(mixed, model.norm_feedforward)
    inner = affine(np.maximum(affine(entering, model.expand), 0.0), model.contract)
    hidden = layer_norm(layer_norm(entering + inner, model.norm_inner), model.norm_last)
    return affine(hidden, model.head)


def test_student_agrees_with_equations_row_by_row() -> None:
    model, batch = small_model(), small_batch()
    logits = array(model(batch.sequences, batch.lengths))
    for row, length in enumerate(batch.lengths.tolist()):
        expected = logits_of_one(model, batch.sequences[row, :length].tolist())
        np.testing.assert_allclose(logits[row], expected, rtol=2e-5, atol=2e-5)


def test_pads_do_not_matter() -> None:
    model, batch = small_model(), small_batch()
    alone = model(batch.sequences[1:2, :3], batch.lengths[1:2])
    torch.testing.assert_close(model(batch.sequences, batch.lengths)[1:2], alone)


def test_dro_term_is_the_specs_number() -> None:
    weights = torch.tensor([0.6, 0.5, 0.5], dtype=torch.float64)
    logits = torch.tensor([[0.2, -0.2, 0.1]], requires_grad=True)
    value = dro_term(logits, torch.tensor([0]), weights, 1.0)
    assert value.item() == pytest.approx(1.25086382, abs=1e-7)
    value.sum().backward()
    expected = torch.tensor([[-0.40345682, -0.05840804, 0.02876923]])
    torch.testing.assert_close(logits.grad, expected, atol=1e-7, rtol=0)


def test_dro_term_is_float64_like_theirs() -> None:
    assert dro_term(torch.zeros(1, 3), torch.tensor([1]), propensity([3, 0, 1]), 1.0).dtype == torch.float64


def test_propensity_is_the_specs_number() -> None:
    np.testing.assert_allclose(propensity([3, 0, 1]), [0.97240705, 0.90728786, 0.93928329], atol=1e-8)


def spec_example() -> tuple[Tensor, AuthorsBatch]:
    """Section 4.5: items 0, 1, 2 are listed; the negative is item 4, with logit .3."""
    logits = torch.tensor([[1.0, -0.5, 0.2, 0.4, 0.3, -1.0]])
    batch = AuthorsBatch(
        sequences=torch.zeros(1, 1, dtype=torch.long),
        lengths=torch.ones(1, dtype=torch.long),
        targets=torch.tensor([5]),
        negatives=torch.tensor([4]),
        ranking=torch.tensor([[0, 1, 2]]),
        distance=torch.tensor([[0.2, 0.9, 1.0]]),
    )
    return logits, batch


def test_candidate_weights_are_the_specs_numbers() -> None:
    logits, batch = spec_example()
    logits[0, 4] = -2.0  # out of the top 3, so that it is {0, 2, 3} as in the example
    weights = candidate_weights(logits, batch, AuthorsSetting(candidates=3))
    expected = torch.tensor([[0.55652091, 0.20101545, 0.24246363]])
    torch.testing.assert_close(weights, expected, atol=2e-7, rtol=0)


class Fixed(torch.nn.Module):
    """A model that answers given logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, sequences: Tensor, lengths: Tensor) -> Tensor:
        return self.logits


def test_distilled_cross_entropy_is_the_specs_number(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, batch = spec_example()
    weights = torch.tensor([[0.55652091, 0.20101545, 0.24246363]])
    monkeypatch.setattr("authors_step.candidate_weights", lambda *_: weights)
    counts = propensity(np.zeros(6))
    setting = AuthorsSetting(candidates=3, alpha=0.0, distil_weight=1.0)
    with_teacher = authors_loss(Fixed(logits), batch, counts, setting)  # type: ignore[arg-type]
    without = authors_loss(Fixed(logits), batch, counts, AuthorsSetting(alpha=0.0, distil_weight=0.0))  # type: ignore[arg-type]
    assert (with_teacher - without).item() == pytest.approx(0.91835418, abs=1e-6)


def test_base_loss_is_the_mean_over_twice_the_rows() -> None:
    model, batch = small_model(), small_batch()
    loss = authors_loss(
        model, batch, propensity(np.zeros(ITEMS)), AuthorsSetting(alpha=0.0, distil_weight=0.0)
    )
    logits = array(model(batch.sequences, batch.lengths))
    rows = np.arange(len(logits))
    positive, negative = logits[rows, batch.targets], logits[rows, batch.negatives]
    expected = (np.log1p(np.exp(-positive)) + np.log1p(np.exp(negative))).mean() / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_robust_half_multiplies_means_as_theirs_does() -> None:
    """Mean of the (B, B) product: mean(w) * mean(l), 1.5 for w = (.9, .1), l = (2, 4), not 1.1."""
    model, batch = small_model(), small_batch()
    weights = propensity(np.arange(ITEMS))
    setting = AuthorsSetting(candidates=3, distil_weight=1.0)
    logits = model(batch.sequences, batch.lengths)
    importance = candidate_weights(logits, batch, setting)
    robust = sum(
        importance[:, k].mean() * dro_term(logits, batch.ranking[:, k], weights, 1.0).mean() for k in range(3)
    )
    pairs = sum(
        (
            importance[:, k]
            * (
                torch.nn.functional.softplus(-logits.gather(1, batch.ranking[:, k : k + 1]))
                + torch.nn.functional.softplus(logits.gather(1, batch.negatives.unsqueeze(1)) - 1)
            ).squeeze(1)
        ).mean()
        for k in range(3)
    )
    base = authors_loss(model, batch, weights, AuthorsSetting(distil_weight=0.0))
    whole = authors_loss(model, batch, weights, setting)
    assert whole.item() == pytest.approx((base + pairs + setting.alpha * robust).item(), rel=1e-6)
    assert (torch.tensor([[0.9], [0.1]]) * torch.tensor([2.0, 4.0])).mean().item() == pytest.approx(1.5)


def test_negatives_avoid_history_target_and_pad() -> None:
    torch.manual_seed(0)
    sequences = torch.tensor([[0, 1, 5], [2, 5, 5]])
    targets = torch.tensor([2, 3])
    drawn = torch.stack([draw_negatives(sequences, targets, 5) for _ in range(200)])
    assert set(drawn[:, 0].tolist()) == {3, 4}
    assert set(drawn[:, 1].tolist()) == {0, 1, 4}


def test_steps_lower_the_loss_of_a_tiny_problem() -> None:
    torch.manual_seed(0)
    dataset = windows(12, ITEMS, length=LENGTH)
    knowledge = teacher(dataset, size=9, listed=3)
    tables = authors_tables(dataset, knowledge, LENGTH)
    setting = AuthorsSetting(candidates=3, learning_rate=0.02)
    trainer = AuthorsTrainer(
        small_model(), tables.frame, tables.ranking, tables.distance, dataset.popularity, setting
    )
    losses = [trainer.step(12) for _ in range(40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
