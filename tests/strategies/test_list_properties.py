"""What must hold for every strategy that reads lists (section 7 of the specification)."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from recdistill.strategies import RD, STRATEGIES, Importance, ListStrategy, Strategy
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.types import PAD, Batch, Task

TASK = Task(40, 4, 4, torch.ones(40), scales={"target_distance": 1.5, "ranking_distance": 2.0})
MAKES = {
    "rd-static": lambda: RD(k=5, weighting="static"),
    "rd-hybrid": lambda: RD(k=5, start_epoch=-1),
    "rd-renormalised": lambda: RD(k=5, start_epoch=-1, renormalise=True),
    "paper": lambda: Importance(variant="paper", k=5),
    "official": lambda: Importance(variant="official", k=5),
    "official-dros": lambda: Importance(variant="official", k=5, dros_weight=0.5),
    "corrected": lambda: Importance(variant="corrected", k=5),
    "corrected-row": lambda: Importance(variant="corrected", k=5, normalise="row", dros_weight=1.0),
}


@pytest.fixture(params=MAKES)
def strategy(request) -> ListStrategy:
    made = MAKES[request.param]()
    made.prepare(TASK)
    return made


def chosen(batch: Batch, order: Tensor) -> Batch:
    """The batch with the rows of `order`."""

    def pick(part):
        return {
            f.name: getattr(part, f.name)[order]
            if isinstance(getattr(part, f.name), Tensor)
            else getattr(part, f.name)
            for f in fields(part)
        }

    return Batch(**{**pick(batch), "knowledge": type(batch.knowledge)(**pick(batch.knowledge))})


def test_permuted_rows_permute_the_losses(strategy, make_random):
    case = make_random(1)
    rows = strategy.per_row(case.output(), case.batch)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = replace(case.output(), hidden=case.logits[order], _memo={})
    torch.testing.assert_close(strategy.per_row(permuted, chosen(case.batch, order)), rows[order])


def test_padding_changes_neither_value_nor_gradient(strategy, make_random):
    case = make_random(2, width=5)
    loss = strategy(case.output(), case.batch)
    loss.backward()
    gradient, case.logits.grad = case.logits.grad, None
    knowledge = case.batch.knowledge
    padded = replace(
        knowledge,
        ranking=torch.nn.functional.pad(knowledge.ranking, (0, 4), value=PAD),
        ranking_distance=torch.nn.functional.pad(knowledge.ranking_distance, (0, 4), value=float("nan")),
    )
    again = strategy(case.output(), replace(case.batch, knowledge=padded))
    again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(case.logits.grad, gradient)


def test_rows_without_knowledge_count_zero(strategy, make_random):
    case = make_random(3)
    rows = strategy.per_row(case.output(), case.batch)
    assert rows[~case.batch.knowledge.covered].tolist() == [0.0]
    assert strategy(case.output(), case.batch) == rows.mean()
    none = replace(case.batch.knowledge, covered=torch.zeros(6, dtype=torch.bool))
    assert strategy(case.output(), replace(case.batch, knowledge=none)) == 0


def test_the_gradient_does_not_go_through_the_weights(strategy, make_random):
    case = make_random(4)
    output = case.output()
    strategy.per_row(output, case.batch).sum().backward()
    listed = teacher_list(
        case.batch, 5, exclude_target=strategy.exclude_target, exclude_history=strategy.exclude_history
    )
    given = (output, case.batch, listed) if isinstance(strategy, Importance) else (output, listed)
    assert not strategy.weights(*given).requires_grad


@pytest.mark.parametrize("size", [50.0, 200.0])
def test_finite_at_extreme_logits(strategy, make_random, size):
    case = make_random(5)
    case.logits.data = size * case.logits.data.sign()
    loss = strategy(case.output(), case.batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(case.logits.grad).all()


def test_computed_logits_or_not_is_the_same(strategy, make_random):
    case = make_random(6)
    torch.testing.assert_close(
        strategy.per_row(case.output(computed=False), case.batch), strategy.per_row(case.output(), case.batch)
    )


def test_one_distance_changes_one_row(make_random):
    """Catches the (B, B) broadcast of the authors' code."""
    case = make_random(7, short=False)
    strategy = Importance(variant="paper", k=5, dros_weight=0.7)
    strategy.prepare(TASK)
    before = strategy.per_row(case.output(), case.batch)
    distance = case.batch.knowledge.target_distance.clone()
    distance[2] = 0.0
    nearer = replace(case.batch, knowledge=replace(case.batch.knowledge, target_distance=distance))
    changed = strategy.per_row(case.output(), nearer) != before
    assert changed.tolist() == [False, False, True, False, False, False]


def test_without_confidence_and_consistency_it_is_gamma_times_rd(make_random):
    case = make_random(8)
    ours = Importance(
        k=5, gamma_position=0.3, gamma_confidence=0.0, gamma_consistency=0.0, position_normalised=True
    )
    rd = RD(k=5, weighting="static", exclude_target=False)
    torch.testing.assert_close(
        ours.per_row(case.output(), case.batch), 0.3 * rd.per_row(case.output(), case.batch)
    )


def test_bf16_logits_give_a_float32_loss(strategy, make_random):
    case = make_random(9)
    output = replace(case.output(computed=False), hidden=case.logits.bfloat16(), _memo={})
    output = replace(output, table=output.item_table.bfloat16())
    loss = strategy(output, case.batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(strategy(case.output(), case.batch).item(), rel=0.1)


def test_table_of_strategies():
    lists = {"cd", "dcd", "hetcomp", "importance", "rce", "rd", "rrd", "soft_labels", "unkd"}
    assert lists == {name for name, made in STRATEGIES.items() if issubclass(made, ListStrategy)}
    for name, made in STRATEGIES.items():
        assert issubclass(made, Strategy)
        assert made.__name__.lower() == name.replace("_", "")
