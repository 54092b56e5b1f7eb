from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.strategies import UnKD
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.strategies.unkd import popularity_groups
from recdistill.types import Task
from references.ranking_strategies import popularity_groups as naive_groups
from references.strategies import softplus


def sets(group_of: torch.Tensor) -> list[list[int]]:
    return [(group_of == g).nonzero().flatten().tolist() for g in range(int(group_of.max()) + 1)]


def ready(counts, **options) -> UnKD:
    strategy = UnKD(**options)
    strategy.prepare(Task(len(counts), 4, 4, torch.as_tensor(counts).float()))
    return strategy


@pytest.mark.parametrize(
    ("counts", "groups", "expected"),
    [
        ([10, 6, 5, 4, 3, 2], 2, [[0], [1, 2, 3, 4, 5]]),
        ([10, 6, 5, 4, 3, 2], 3, [[0], [1], [2, 3, 4, 5]]),
        ([6, 6, 6, 2], 2, [[0], [1], [2, 3]]),
    ],
)
def test_groups_of_the_specification(counts, groups, expected):
    assert sets(popularity_groups(torch.tensor(counts), groups)) == expected


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=25), groups=st.integers(1, 6))
def test_groups_are_those_of_the_naive_cut(counts, groups):
    found = sets(popularity_groups(torch.tensor(counts), groups))
    assert sorted(item for group in found for item in group) == list(range(len(counts)))
    assert all(found)
    assert found == [sorted(group) for group in naive_groups(counts, groups)]


def test_pairs_of_the_specification(make_case, monkeypatch):
    case = make_case(torch.tensor([[1.0, 0.2, 0.4, 0.9, 0.0]]), torch.tensor([[0, 1, 2, 3]]))
    strategy = ready([1] * 5)
    pairs = (torch.tensor([[0, 2]]), torch.tensor([[1, 3]]), torch.tensor([[True, True]]))
    monkeypatch.setattr(strategy, "draw", lambda *_: pairs)
    assert strategy(case.output(), case.batch).item() == pytest.approx(0.6725888250639422, rel=1e-6)


def test_first_places_of_the_specification():
    torch.manual_seed(0)
    strategy = ready([1] * 5, temperature=20.0)
    places = strategy._draw_places(torch.full((100, 1, 2000), 1000))
    shares = torch.bincount(places.flatten(), minlength=3)[:3] / places.numel()
    expected = [0.048770575499285984, 0.04639200646475443, 0.04412944161090176]
    assert (shares - torch.tensor(expected)).abs().max() < 0.002


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.integers(1, 4), short=st.booleans())
def test_pairs_are_of_one_group_and_in_the_teachers_order(make_random, seed, groups, short):
    case = make_random(seed, items=30, width=12, short=short)
    counts = torch.randint(1, 20, (30,), generator=torch.Generator().manual_seed(seed))
    strategy = ready(counts, groups=groups, pairs=12)
    listed = teacher_list(case.batch, 1000, exclude_target=True, exclude_history=False)
    better, worse, mask = strategy.draw(listed)
    groups_of = strategy.group_of
    for s in range(6):
        row = listed.items[s][listed.mask[s]].tolist()
        for plus, minus in zip(better[s][mask[s]].tolist(), worse[s][mask[s]].tolist(), strict=True):
            assert plus != minus
            assert groups_of[plus] == groups_of[minus]
            assert plus in row
            if minus in row:
                assert row.index(plus) < row.index(minus)
            else:  # allowed where its group has one listed item only
                assert sum(groups_of[item] == groups_of[plus] for item in row) == 1
        several = {int(g) for g in groups_of[row].tolist()} if row else set()
        assert {int(groups_of[i]) for i in better[s][mask[s]].tolist()} == {
            g for g in several if int((groups_of == g).sum()) > 1
        }


def test_one_group_draws_pairs_by_their_ranks(make_case):
    """One group is a pairwise loss between places drawn by exp(-k / mu): both places, given that they differ."""
    case = make_case(torch.zeros(4000, 20), torch.arange(5).expand(4000, -1))
    strategy = ready([1] * 20, groups=1, pairs=10, temperature=2.0)
    listed = teacher_list(case.batch, 1000, exclude_target=True, exclude_history=False)
    torch.manual_seed(0)
    better, worse, mask = strategy.draw(listed)
    weights = [math.exp(-k / 2.0) for k in range(5)]
    shares = [w / sum(weights) for w in weights]
    total = 1 - sum(p * p for p in shares)
    assert mask.float().mean() > 0.9999
    for a in range(5):
        for b in range(a + 1, 5):
            found = ((better == a) & (worse == b)).float().mean().item()
            assert found == pytest.approx(2 * shares[a] * shares[b] / total, abs=0.01)


def test_loss_equals_the_naive_formula_on_its_draw(make_random, monkeypatch):
    case = make_random(2, items=30, width=12)
    strategy = ready(torch.arange(1, 31), groups=3, pairs=9)
    listed = teacher_list(case.batch, 1000, exclude_target=True, exclude_history=False)
    better, worse, mask = strategy.draw(listed)
    monkeypatch.setattr(strategy, "draw", lambda *_: (better, worse, mask))
    for s, value in enumerate(strategy.per_row(case.output(), case.batch).tolist()):
        pairs = zip(better[s][mask[s]].tolist(), worse[s][mask[s]].tolist(), strict=True)
        terms = [softplus(case.logits[s, b].item() - case.logits[s, a].item()) for a, b in pairs]
        expected = sum(terms) / len(terms) if terms else 0.0
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_listed_item_is_compared_with_all_others_of_its_group(make_case):
    case = make_case(
        torch.zeros(2000, 6), torch.tensor([[2]]).expand(2000, -1), targets=torch.full((2000,), 5)
    )
    strategy = ready(
        [9, 8, 1, 1, 1, 1], groups=2, pairs=2
    )  # groups {0} and {1}, and {2, 3, 4, 5} joins the last
    group = (strategy.group_of == strategy.group_of[2]).nonzero().flatten().tolist()
    listed = teacher_list(case.batch, 10, exclude_target=True, exclude_history=False)
    torch.manual_seed(0)
    better, worse, mask = strategy.draw(listed)
    assert set(better[mask].tolist()) == {2}
    shares = torch.bincount(worse[mask], minlength=6) / mask.sum()
    others = [item for item in group if item != 2]
    assert shares[others].tolist() == pytest.approx([1 / len(others)] * len(others), abs=0.05)
    assert shares[others].sum() == 1


@pytest.mark.parametrize(
    ("option", "value"), [("groups", 0), ("pairs", 0), ("temperature", 0.0), ("pool", 0)]
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        UnKD(**{option: value})
