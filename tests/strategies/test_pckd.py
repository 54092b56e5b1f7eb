from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import PCKD, Hint
from recdistill.types import Task
from references import item_strategies as naive
from references.item_cases import batch_of, item_vectors, output_of, prepared

BEFORE, AFTER = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.5, 0.6, -0.2]])
BATCH = batch_of([[0, 5, 7], [1, 2, 9]], [2, 3])


def student(items: int = 30, size: int = 4, rows: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(items, size, generator=generator).requires_grad_()
    hidden = torch.randn(rows, size, generator=generator).requires_grad_()
    return table, hidden


@pytest.mark.parametrize(
    ("kind", "tau", "expected"), [("list", 0.1, 1.313461516841864), ("list", 1.0, 0.994735241062943)]
)
def test_numbers_of_the_specification(kind, tau, expected):
    made = PCKD(kind=kind, temperature=tau)
    assert made.consistency(BEFORE, AFTER).item() == pytest.approx(expected, rel=1e-6)
    assert naive.pckd_list([1, 0, -1], [0.5, 0.6, -0.2], tau) == pytest.approx(expected)


def test_the_pair_of_the_specification():
    found = PCKD(kind="pair").consistency(BEFORE[:, :2], AFTER[:, :2]).item()
    assert found == pytest.approx(0.7443966600735709)


@pytest.mark.parametrize("kind", ["list", "pair"])
def test_consistency_is_the_naive_formula(kind):
    generator = torch.Generator().manual_seed(1)
    before, after = (torch.randn(5, 4, generator=generator) for _ in range(2))
    one = (lambda b, a: naive.pckd_list(b, a, 0.5)) if kind == "list" else naive.pckd_pairs
    expected = np.mean([one(b, a) for b, a in zip(before.tolist(), after.tolist(), strict=True)])
    found = PCKD(kind=kind, temperature=0.5).consistency(before, after)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_without_preference_it_is_hint():
    table, hidden = student()
    teacher = item_vectors(30, 6)
    made, hint = prepared(PCKD(alpha=0), teacher, 4), prepared(Hint(), teacher, 4)
    hint.regressor.load_state_dict(made.regressor.state_dict())
    torch.testing.assert_close(made(output_of(table, hidden), BATCH), hint(output_of(table, hidden), BATCH))


def test_the_preference_term_teaches_the_projectors_alone():
    table, hidden = student()
    made = prepared(PCKD(rank=3), item_vectors(30, 6), 4)
    made.preference(output_of(table, hidden)).backward()
    assert table.grad is None
    assert hidden.grad is None
    assert all((p.grad.abs().sum() > 0) for p in (made.regressor.weight, made.row_regressor.weight))


def test_the_whole_loss_reaches_the_student():
    table, hidden = student()
    made = prepared(PCKD(alpha=10.0), item_vectors(30, 6), 4)
    torch.manual_seed(0)
    whole = made(output_of(table, hidden), BATCH)
    torch.manual_seed(0)
    parts = prepared(PCKD(alpha=0), item_vectors(30, 6), 4)
    parts.regressor.load_state_dict(made.regressor.state_dict())
    hint = parts(output_of(table, hidden), BATCH)
    torch.manual_seed(0)
    torch.testing.assert_close(whole, hint + 10 * made.preference(output_of(table, hidden)))
    whole.backward()
    assert (table.grad[[0, 1, 2, 5, 7, 9]].abs().sum(1) > 0).all()
    assert sorted(made.state_dict()) == [
        "regressor.bias",
        "regressor.weight",
        "row_regressor.bias",
        "row_regressor.weight",
    ]


def test_drawn_items_are_different_ones_of_the_best_and_follow_the_law():
    torch.manual_seed(0)
    made = PCKD(samples=2, pool=4, sampling_temperature=1.0)
    scores = torch.randn(40).repeat(20_000, 1)
    drawn = made.draw(scores)
    best = scores[0].argsort(descending=True)[:4]
    assert set(drawn.unique().tolist()) == set(best.tolist())
    assert (drawn[:, 0] != drawn[:, 1]).all()
    # two draws without replacement from p, in order
    p = np.exp(-np.arange(1, 5))
    p /= p.sum()
    expected = [p[k] + sum(p[j] * p[k] / (1 - p[j]) for j in range(4) if j != k) for k in range(4)]
    found = [(drawn == item).any(1).float().mean().item() for item in best]
    np.testing.assert_allclose(found, expected, atol=0.015)


def test_projection_learns_to_keep_preferences():
    torch.manual_seed(0)
    table, hidden = student(rows=64)
    made = prepared(PCKD(alpha=1.0, temperature=1.0), item_vectors(30, 6), 4)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    output = output_of(table.detach(), hidden.detach())
    first = torch.stack([made.preference(output) for _ in range(5)]).mean().item()
    for _ in range(150):
        loss = made.preference(output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = torch.stack([made.preference(output) for _ in range(5)]).mean().item()
    assert last < 0.8 * first


def test_a_bias_and_few_items_or_rows_are_fine():
    table, hidden = student(items=6)
    made = prepared(PCKD(rows=2), item_vectors(6, 6), 4)
    output = output_of(table, hidden)
    biased = type(output)(hidden, output.item_table, torch.arange(6.0), output.embed_items)
    assert made(biased, batch_of([[0, 1]], [2])).isfinite()
    assert made.draw(torch.randn(3, 6)).shape == (3, 5)


def test_refuses():
    with pytest.raises(KnowledgeError, match="'pckd'"):
        PCKD().prepare(Task(3, 2, 2, torch.ones(3)))
    wrong = ({"kind": "triple"}, {"alpha": -1.0}, {"samples": 1}, {"temperature": 0.0}, {"rows": 0})
    for options in (*wrong, {"samples": 200}, {"regressor": "tree"}, {"sampling_temperature": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            PCKD(**options)
