from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.strategies import RRD
from recdistill.strategies.draws import draw_columns, draw_items
from recdistill.strategies.listwise import NOTHING, relaxed_ranking_loss
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.types import PAD
from references.ranking_strategies import rrd
from references.strategies import listed_items


def loss_of(ordered: list[float], rest: list[float]) -> torch.Tensor:
    """The loss of one row, with gradients in `ordered` and `rest`."""
    scores = torch.tensor([ordered], dtype=torch.float64)
    return relaxed_ranking_loss(
        scores,
        torch.ones_like(scores, dtype=torch.bool),
        torch.tensor([rest], dtype=torch.float64).logsumexp(1),
    )


@pytest.mark.parametrize(
    ("ordered", "rest", "expected"),
    [
        ([2.0, 1.0], [0.5, -0.5], 1.1188055708377038),
        ([1.0, 2.0], [0.5, -0.5], 1.781042865308109),
        ([2.0, 1.0], [-0.5, 0.5], 1.1188055708377038),
        ([102.0, 101.0], [100.5, 99.5], 1.1188055708377078),
        ([95.0, 1.0], [0.0, 0.0], 0.55144471),
    ],
)
def test_numbers_of_the_specification(ordered, rest, expected):
    assert loss_of(ordered, rest).item() == pytest.approx(expected, rel=1e-6)


def test_nothing_below_is_listmle(make_case):
    case = make_case(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0, 1]]))
    strategy = RRD(k=2, samples=3)  # the third item is the target: nothing is left to draw
    assert strategy(case.output(), case.batch).item() == pytest.approx(0.31326168751822303, rel=1e-6)


def test_gradient_of_the_specification(make_case):
    case = make_case(torch.tensor([[2.0, 1.0, 0.5, -0.5, 9.0]]), torch.tensor([[0, 1]]))
    strategy = RRD(k=2, negatives="full")  # item 4 is the target: in no set
    loss = strategy(case.output(), case.batch)
    assert loss.item() == pytest.approx(1.1188055708377038, rel=1e-6)
    loss.backward()
    assert case.logits.grad is not None
    expected = [-0.4023051655097041, -0.23357097103047264, 0.46486270456380047, 0.1710134319763762, 0.0]
    torch.testing.assert_close(case.logits.grad[0], torch.tensor(expected))
    assert case.logits.grad.sum().abs() < 1e-6


def test_probabilities_of_the_draw():
    weights = torch.arange(1, 501).neg().div(10.0)
    shares = weights.softmax(0)
    expected = [0.09516258196404043, 0.08610666495797771, 0.077912532396264, 0.07049817464607858]
    assert shares[:4].tolist() == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(0)
    first, _ = draw_columns(weights.expand(10_000, -1), 1)
    counts = torch.bincount(first.flatten(), minlength=500) / 10_000
    assert (counts[:4] - shares[:4]).abs().max() < 0.012
    assert counts[:40].sum().item() == pytest.approx(0.9816843611112658, abs=0.008)


def test_sampled_items_are_distinct_and_in_the_teachers_order(make_random):
    case = make_random(0, items=60, width=30)
    strategy = RRD(k=6, interesting="sampled", temperature=5.0)
    listed = teacher_list(case.batch, 30, exclude_target=True, exclude_history=False)
    for _ in range(5):
        items, mask = strategy.choose(listed)
        for s in range(len(items)):
            ranking = case.batch.knowledge.ranking[s].tolist()
            places = [ranking.index(item) for item in items[s][mask[s]].tolist()]
            assert places == sorted(set(places))
            assert len(places) == min(6, int(listed.mask[s].sum()))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), target=st.booleans(), history=st.booleans())
def test_full_negatives_equal_the_naive_formula(make_random, seed, k, target, history):
    case = make_random(seed)
    strategy = RRD(k=k, negatives="full", exclude_target=target, exclude_history=history)
    rows = strategy.per_row(case.output(computed=False), case.batch)
    for s, value in enumerate(rows.tolist()):
        banned = set(case.batch.history[s].tolist()) if history else set()
        banned |= {int(case.batch.targets[s])} if target else set()
        width = 2 * k if history else k + int(target)
        ranking = case.batch.knowledge.ranking[s, :width].tolist()
        items = [i for _, i in listed_items(ranking, k, banned)] if case.batch.knowledge.covered[s] else []
        logits = case.logits[s].tolist()
        rest = [f for i, f in enumerate(logits) if i not in items and i not in banned]
        assert value == pytest.approx(rrd([logits[i] for i in items], rest), rel=1e-4, abs=1e-5)


def test_sampled_negatives_are_a_part_of_the_full_ones(make_random):
    """As many as 2,000 draws from 40 items: the shares of the items are even, and no banned one comes."""
    case = make_random(1, rows=2)
    torch.manual_seed(0)
    banned = torch.cat([case.batch.knowledge.ranking, case.batch.targets.unsqueeze(1)], dim=1)
    drawn = draw_items(40, 4000, banned)
    for s in range(2):
        allowed = set(range(40)) - set(banned[s].tolist())
        assert set(drawn[s].tolist()) == allowed
        counts = torch.bincount(drawn[s], minlength=40)[sorted(allowed)] / 4000
        assert (counts - 1 / len(allowed)).abs().max() < 0.02


def test_nothing_left_to_draw_is_a_pad():
    assert draw_items(3, 2, torch.tensor([[0, 1, 2]])).tolist() == [[PAD, PAD]]


def test_sampled_loss_equals_the_naive_formula(make_random, monkeypatch):
    case = make_random(2, short=False)
    others = torch.randint(40, (6, 5), generator=torch.Generator().manual_seed(1))
    others[0, 3:] = PAD
    monkeypatch.setattr("recdistill.strategies.rrd.draw_negatives", lambda *_: others)
    rows = RRD(k=4, exclude_target=False).per_row(case.output(), case.batch)
    for s, value in enumerate(rows.tolist()):
        logits = case.logits[s].tolist()
        ordered = [logits[i] for i in case.batch.knowledge.ranking[s, :4].tolist()]
        rest = [logits[i] for i in others[s].tolist() if i != PAD]
        assert value == pytest.approx(rrd(ordered, rest), rel=1e-4)


def test_one_interesting_item_is_the_cross_entropy(make_random):
    case = make_random(3, short=False)
    strategy = RRD(k=1, negatives="full", exclude_target=False)
    expected = torch.nn.functional.cross_entropy(
        case.logits, case.batch.knowledge.ranking[:, 0], reduction="none"
    )
    torch.testing.assert_close(strategy.per_row(case.output(), case.batch), expected)


def test_a_masked_row_has_no_gradient():
    scores = torch.randn(2, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    rows = relaxed_ranking_loss(scores, mask, torch.tensor([NOTHING, NOTHING]))
    rows.sum().backward()
    assert rows[1] == 0
    assert scores.grad is not None
    assert scores.grad[1].tolist() == [0.0] * 3
    assert scores.grad[0, 1] == 0
    first, last = scores[0, 0].item(), scores[0, 2].item()
    assert rows[0].item() == pytest.approx(math.log(math.exp(first) + math.exp(last)) - first, rel=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [("k", 0), ("samples", 0), ("temperature", 0.0), ("interesting", "best"), ("negatives", "all")],
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        RRD(**{option: value})
