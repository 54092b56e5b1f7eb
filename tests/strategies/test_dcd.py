from __future__ import annotations

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.strategies import DCD
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.types import PAD
from references.ranking_strategies import discrepancies, item_side, rrd
from references.strategies import rank_of

RANKS = [3, 0, 9, 2, 4]


@pytest.fixture
def example(make_case):
    """Section 1.4 of the specification: five listed items with these logits; their ranks are given."""
    logits = torch.tensor([[0.3, 1.2, -0.8, 0.9, 0.1, -5.0]])
    return make_case(logits, torch.tensor([[0, 1, 2, 3, 4]]))


def drawn(strategy: DCD, case) -> tuple[list[list[int]], list[list[int]]]:
    """The items of pi and of Z of each row."""
    output = case.output()
    listed = teacher_list(case.batch, strategy.pool, exclude_target=True, exclude_history=False)
    pool, allowed = strategy._pool(output, case.batch, listed)
    under, mask, over, which = strategy.draw(output, listed, output.scores(listed.items), allowed)
    rows = range(len(under))
    return (
        [listed.items[s, under[s]][mask[s]].tolist() for s in rows],
        [pool[s, over[s]][which[s]].tolist() for s in rows],
    )


def port(**options) -> DCD:
    return DCD(over="list", relative_gap=False, sharpness=0.1, ranks="exact", **options)


def test_probabilities_of_the_specification():
    strategy = port(floor=1e-5)
    gap = torch.tensor(RANKS) - torch.arange(5)
    under, over = strategy.discrepancy(gap, 10), strategy.discrepancy(-gap, 10)
    expected_under = [0.29131261245159096, 1e-05, 0.6043677771171635, 1e-05, 1e-05]
    assert under.tolist() == pytest.approx(expected_under, rel=1e-5)
    assert (under / under.sum()).tolist() == pytest.approx(
        [
            0.3252308065689015,
            1.1164322884336047e-05,
            0.6747357004624456,
            1.1164322884336047e-05,
            1.1164322884336047e-05,
        ],
        rel=1e-5,
    )
    assert (over / over.sum()).tolist() == pytest.approx(
        [
            5.015900674745822e-05,
            0.4999247614898788,
            5.015900674745822e-05,
            0.4999247614898788,
            5.015900674745822e-05,
        ],
        rel=1e-5,
    )
    assert discrepancies([0.1 * g for g in gap.tolist()], 1.0, 1e-5) == pytest.approx(expected_under)


def test_loss_of_the_specification(example, monkeypatch):
    monkeypatch.setattr("recdistill.strategies.dcd.student_ranks", lambda *_: torch.tensor([RANKS]).float())
    strategy = port(k=5)
    loss = strategy(example.output(), example.batch)
    assert loss.item() == pytest.approx(4.35459277265266, rel=1e-6)
    assert drawn(strategy, example) == ([[0, 2]], [[1, 3]])


def test_agreement_has_no_loss(make_case):
    logits = torch.linspace(3, -3, 12).expand(2, -1)
    case = make_case(logits, torch.arange(5).expand(2, -1))
    for strategy in (port(k=5), DCD(ranks="exact")):
        loss = strategy(case.output(), case.batch)
        assert loss == 0
        loss.backward()
        assert case.logits.grad.abs().max() == 0


@pytest.mark.parametrize("over", ["student", "list"])
@pytest.mark.parametrize("relative", [True, False])
def test_takes_all_that_differ_where_there_is_room(make_random, over, relative):
    """With k as large as the lists nothing is left to chance."""
    case = make_random(1)
    strategy = DCD(k=40, pool=8, over=over, relative_gap=relative, ranks="exact")
    rows = strategy.per_row(case.output(computed=False), case.batch)
    for s, value in enumerate(rows.tolist()):
        logits, target = case.logits[s].tolist(), int(case.batch.targets[s])
        listed = [i for i in case.batch.knowledge.ranking[s].tolist() if i not in (PAD, target)][:8]
        if not bool(case.batch.knowledge.covered[s]):
            listed = []
        gaps = [rank_of(logits, item) - place for place, item in enumerate(listed)]
        behind = [item for item, d in zip(listed, discrepancies(gaps, 10, 0), strict=True) if d > 0]
        ahead = [
            item for item, d in zip(listed, discrepancies([-g for g in gaps], 10, 0), strict=True) if d > 0
        ]
        if over == "student":
            top = sorted(range(40), key=lambda i: -logits[i])[:8]
            ahead = [i for r, i in enumerate(top) if i not in listed and i != target and r < len(listed)]
        expected = rrd([logits[i] for i in behind], [logits[i] for i in ahead])
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_draws_in_proportion_to_the_discrepancy(make_case):
    logits = torch.cat([torch.tensor([2.0, 2.5, 2.2]), torch.linspace(3, -3, 30)]).expand(3000, -1)
    case = make_case(logits, torch.arange(3).expand(3000, -1))
    strategy = DCD(k=1, ranks="exact", relative_gap=False, sharpness=0.05)
    torch.manual_seed(0)
    items = torch.tensor(drawn(strategy, case)[0])
    weights = torch.tensor(discrepancies([rank_of(logits[0].tolist(), i) - i for i in range(3)], 0.05, 0.0))
    shares = torch.bincount(items.flatten(), minlength=3)[:3] / 3000
    assert (shares - weights / weights.sum()).abs().max() < 0.03


def test_sampled_ranks_draw_nearly_as_exact_ones(make_random):
    torch.manual_seed(0)
    case = make_random(2, items=500, width=20, short=False)
    exact, _ = drawn(DCD(k=20, pool=20, ranks="exact"), case)
    sampled, _ = drawn(DCD(k=20, pool=20, samples=5000), case)
    for mine, theirs in zip(sampled, exact, strict=True):
        assert len(set(mine) ^ set(theirs)) <= 2


@pytest.mark.parametrize("seed", range(4))
def test_item_side_equals_the_naive_formula(make_random, seed):
    case = make_random(seed, items=12, width=5)
    strategy = DCD(user_weight=0.0, item_weight=1.0, item_samples=100, exclude_target=False)
    rows = strategy.per_row(case.output(), case.batch)
    known = case.batch.knowledge
    lists = [
        [i for i in known.ranking[s].tolist() if i != PAD] if bool(known.covered[s]) else [] for s in range(6)
    ]
    expected = item_side(case.logits.tolist(), lists)
    assert rows.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert max(expected) > 0
    rows.sum().backward()
    assert case.logits.grad.abs().max() > 0


def test_item_side_takes_some_items(make_random):
    case = make_random(0, items=12, width=5, short=False)
    all_rows, two = (
        DCD(user_weight=0.0, item_weight=1.0, item_samples=n).per_row(case.output(), case.batch)
        for n in (100, 2)
    )
    assert 0 < two.sum() < all_rows.sum()


def test_both_sides_add_up(make_random):
    case = make_random(3, items=12, width=5)
    options = {"k": 40, "ranks": "exact", "item_samples": 100}
    both = DCD(user_weight=0.3, item_weight=0.2, **options).per_row(case.output(), case.batch)
    user = DCD(**options).per_row(case.output(), case.batch)
    item = DCD(user_weight=0.0, item_weight=1.0, **options).per_row(case.output(), case.batch)
    torch.testing.assert_close(both, 0.3 * user + 0.2 * item)


@pytest.mark.parametrize(
    ("option", "value"),
    [("k", 0), ("over", "all"), ("ranks", "none"), ("sharpness", 0.0), ("item_weight", -1.0)],
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        DCD(**{option: value})
