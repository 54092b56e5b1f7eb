from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import DE, Hint
from recdistill.types import PAD, Task
from references import item_strategies as naive
from references.item_cases import batch_of, item_vectors, output_of, prepared

HISTORY, TARGETS = [[0, 3, 5, PAD], [5, 7, 1, 9]], [2, 3]
ITEMS = [0, 1, 2, 5, 7, 9]  # of the batch, without item 3, which has no text


def example(tau: float) -> DE:
    """Two experts that answer [1, 0] and [0, 1], and a gate of 3 to 1, whatever the item."""
    made = prepared(DE(experts=2, standardise=False, rank=None, reduction="sum"), torch.ones(1, 2), 2)
    for parameter in made.parameters():
        parameter.data.zero_()
    made.gate.bias.data = torch.tensor([3.0, 1.0]).log()
    made.exit_bias.data = torch.eye(2)
    made._tau = tau
    return made.eval()


@pytest.mark.parametrize(
    ("tau", "shares", "loss"),
    [(1.0, [0.75, 0.25], 0.625), (0.5, [0.9, 0.1], 0.82), (1e-10, [1.0, 0.0], 1.0)],
)
def test_numbers_of_the_specification(tau, shares, loss):
    made = example(tau)
    teacher = torch.ones(1, 2)
    torch.testing.assert_close(made.shares(teacher), torch.tensor([shares]), atol=1e-6, rtol=0)
    assert made.rebuild(torch.randn(1, 2), teacher).item() == pytest.approx(loss, rel=1e-6)


def test_noise_of_the_specification(monkeypatch):
    made = example(1.0).train()
    drawn = torch.exp(-torch.tensor([[0.0, 1.0]]))  # minus the logarithm of these is the Gumbel draw [0, 1]
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: drawn.clone())
    torch.testing.assert_close(made.shares(torch.ones(1, 2)), torch.tensor([[0.52463311, 0.47536689]]))
    assert made.rebuild(torch.zeros(1, 2), torch.ones(1, 2)).item() == pytest.approx(0.50121358)


@pytest.mark.parametrize(("progress", "tau"), [(0, 1.0), (10, 0.1), (50, 1e-5), (100, 1e-10), (400, 1e-10)])
def test_annealing_of_the_specification(progress, tau):
    made = DE(tau_floor=0)
    made.on_epoch(progress)
    assert made.tau == pytest.approx(tau)
    floored = DE()
    floored.on_epoch(progress)
    assert floored.tau == pytest.approx(max(tau, 1e-3))


def test_it_is_the_naive_formula_with_its_own_experts():
    torch.manual_seed(1)
    teacher, table = item_vectors(12, 6), torch.randn(12, 4)
    made = prepared(DE(experts=3, standardise=False, rank=None, reduction="sum"), teacher, 4).eval()
    made.on_epoch(12)
    inner = made.exit.shape[1]
    alphas = made.gate(teacher[ITEMS]).softmax(1).double().tolist()
    entry, bias = (p.detach().double().numpy() for p in (made.entry.weight, made.entry.bias))
    exits, exit_bias = (p.detach().double().numpy() for p in (made.exit, made.exit_bias))
    experts = [
        [
            naive.mlp(
                (entry[m * inner : (m + 1) * inner], exits[m].T),
                (bias[m * inner : (m + 1) * inner], exit_bias[m]),
                table[item].double().numpy(),
            )
            for m in range(3)
        ]
        for item in ITEMS
    ]
    expected = naive.de(teacher[ITEMS].double().numpy(), alphas, experts, np.zeros((len(ITEMS), 3)), made.tau)
    found = made(output_of(table), batch_of(HISTORY, TARGETS))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    made.reduction = "item"
    assert made(output_of(table), batch_of(HISTORY, TARGETS)).item() == pytest.approx(expected / 6, rel=1e-5)
    made.reduction = "dimension"
    assert made(output_of(table), batch_of(HISTORY, TARGETS)).item() == pytest.approx(expected / 36, rel=1e-5)


def test_one_expert_is_twice_hint_with_that_mlp():
    teacher, table = item_vectors(12, 6), torch.randn(12, 4)
    expert = prepared(DE(experts=1, rank=None), teacher, 4)
    hint = prepared(Hint(regressor="mlp"), teacher, 4)
    hint.regressor[0].weight.data = expert.entry.weight.data
    hint.regressor[0].bias.data = expert.entry.bias.data
    hint.regressor[2].weight.data = expert.exit[0].T.data
    hint.regressor[2].bias.data = expert.exit_bias[0].data
    batch = batch_of(HISTORY, TARGETS)
    torch.testing.assert_close(expert(output_of(table), batch), 2 * hint(output_of(table), batch))


def test_the_gradient_reaches_student_gate_and_experts_and_stays_finite_at_a_low_temperature():
    teacher = item_vectors(12, 6)
    table = torch.randn(12, 4, requires_grad=True)
    made = prepared(DE(experts=3, rank=4), teacher, 4)
    for epoch in (0, 500):
        made.on_epoch(epoch)
        made.zero_grad()
        table.grad = None
        made(output_of(table), batch_of(HISTORY, TARGETS)).backward()
        assert (table.grad[ITEMS].abs().sum(1) > 0).all()
        assert table.grad[[3, 4, 6, 8]].abs().max() == 0
        assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    assert not any(name in made.state_dict() for name in ("teacher", "known"))


def test_it_learns_which_expert_answers_for_which_kind():
    """Two kinds of items whose vectors are opposite maps of the student's: one expert cannot fit both."""
    torch.manual_seed(0)
    table, kind = torch.randn(60, 4), torch.arange(60) % 2
    teacher = torch.where(kind[:, None] == 0, table, -table)
    teacher = torch.cat([teacher, torch.nn.functional.one_hot(kind).float() * 3], 1)
    losses = {}
    for experts in (1, 2):
        made = prepared(DE(experts=experts, rank=None, standardise=False), teacher, 4)
        optimizer = torch.optim.Adam(made.parameters(), lr=0.03)
        for _ in range(200):
            loss = made(output_of(table), batch_of([list(range(60))], [0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[experts] = made.eval()(output_of(table), batch_of([list(range(60))], [0])).item()
    assert losses[2] < 0.2 * losses[1]


def test_noise_is_off_in_evaluation_mode_and_on_in_training():
    made = prepared(DE(experts=4, rank=4), item_vectors(12, 6), 4)
    batch, table = batch_of(HISTORY, TARGETS), torch.randn(12, 4)
    values = {made(output_of(table), batch).item() for _ in range(3)}
    made.eval()
    fixed = {made(output_of(table), batch).item() for _ in range(3)}
    assert len(values) == 3
    assert len(fixed) == 1


def test_a_batch_without_text_costs_nothing():
    made = prepared(DE(experts=2, rank=3), item_vectors(12, 6), 4)
    assert made(output_of(torch.randn(12, 4)), batch_of([[3]], [3])).item() == 0


def test_a_few_items_drawn_anew_give_the_loss_of_all_in_the_mean():
    torch.manual_seed(0)
    vectors, table = item_vectors(12, 6), torch.randn(12, 4)
    few = prepared(DE(experts=2, rank=3, most_items=2), vectors, 4).eval()
    whole = prepared(DE(experts=2, rank=3), vectors, 4).eval()
    whole.load_state_dict(few.state_dict())
    output, batch = output_of(table), batch_of(HISTORY, TARGETS)
    drawn = torch.stack([few(output, batch).detach() for _ in range(4000)])
    assert drawn.std() > 0
    assert drawn.mean().item() == pytest.approx(whole(output, batch).item(), rel=0.05)


def test_refuses():
    with pytest.raises(KnowledgeError, match="'de' needs the field 'item_embeddings'"):
        DE().prepare(Task(3, 2, 2, torch.ones(3)))
    with pytest.raises(KnowledgeError, match=r"300 numbers.*de\.rank=128"):
        prepared(DE(rank=None), torch.randn(5, 300), 2)
    for options in (
        {"experts": 0},
        {"table": "both"},
        {"tau_end": 0.0},
        {"tau_floor": -1.0},
        {"rank": 0},
        {"most_items": 0},
    ):
        with pytest.raises(ConfigError, match=next(iter(options))):
            DE(**options)
