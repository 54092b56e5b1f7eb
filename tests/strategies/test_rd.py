from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.strategies import RD, student_lists
from references.strategies import listed_items, rd_row


@pytest.fixture
def example(make_case):
    """Section 1.1 of the specification: 101 items, of which 75, 25 and 100 are above the three listed."""
    logits = torch.full((1, 101), -0.2)
    logits[0, :3] = torch.tensor([0.2, 1.5, -0.7])
    logits[0, 3:28] = 2.0
    logits[0, 28:77] = 0.9
    return make_case(logits, torch.tensor([[0, 1, 2]]))


def after_start(strategy: RD) -> RD:
    strategy.on_epoch(strategy.start_epoch + 1)
    return strategy


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weighting": "static"}, 0.5465185090190606),
        ({"weighting": "hybrid"}, 0.33913269462129525),
        ({"weighting": "hybrid", "renormalise": True}, 0.6189020771153332),
    ],
)
def test_numbers_of_the_specification(example, options, expected):
    strategy = after_start(RD(k=3, mu=0.01, **options))
    assert strategy(example.output(), example.batch).item() == pytest.approx(expected, rel=1e-6)


def test_static_gradient_of_the_specification(example):
    RD(k=3, weighting="static")(example.output(), example.batch).backward()
    assert example.logits.grad is not None
    expected = [-0.2994688618851783, -0.04464471952250018, -0.06015732811373959]
    torch.testing.assert_close(example.logits.grad[0, :3], torch.tensor(expected))
    assert example.logits.grad[0, 3:].abs().max() == 0


@pytest.mark.parametrize("computed", [True, False])
def test_sampled_ranks_of_the_specification(example, monkeypatch, computed):
    example.logits.data[0, 97:101] = torch.tensor([1.0, -0.5, 0.3, 2.0])
    monkeypatch.setattr(student_lists.torch, "randint", lambda *_, **__: torch.arange(97, 101))
    strategy = after_start(RD(k=3, mu=0.01, ranks="sampled", samples=4, exclude_target=False))
    loss = strategy(example.output(computed=computed), example.batch)
    assert loss.item() == pytest.approx(0.33913269462129525, rel=1e-6)


def test_sampled_ranks_come_near_the_exact_ones(make_random):
    torch.manual_seed(0)
    case = make_random(3, items=200, short=False)
    exact = student_lists.student_ranks(case.output(), case.batch.knowledge.ranking)
    sampled = student_lists.sampled_ranks(case.output(), case.batch.knowledge.ranking, 20_000)
    assert (exact - sampled).abs().max() < 4


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    weighting=st.sampled_from(["static", "dynamic", "hybrid"]),
    renormalise=st.booleans(),
    relative=st.booleans(),
    target=st.booleans(),
    history=st.booleans(),
    computed=st.booleans(),
    k=st.integers(1, 4),
)
def test_equals_the_naive_formula(
    make_random, seed, weighting, renormalise, relative, target, history, computed, k
):
    case = make_random(seed)
    strategy = after_start(
        RD(
            weighting=weighting,
            k=k,
            temperature=2.0,
            mu=3.0 if relative else 0.1,
            renormalise=renormalise,
            relative_gap=relative,
            exclude_target=target,
            exclude_history=history,
        )
    )
    if weighting == "static" and renormalise:
        renormalise = False  # its weights sum to 1 already
    rows = strategy.per_row(case.output(computed=computed), case.batch)
    for s, value in enumerate(rows.tolist()):
        banned = set(case.batch.history[s].tolist()) if history else set()
        banned |= {int(case.batch.targets[s])} if target else set()
        width = 2 * k if history else k + int(target)
        ranking = case.batch.knowledge.ranking[s, :width].tolist()
        items = (
            [item for _, item in listed_items(ranking, k, banned)] if case.batch.knowledge.covered[s] else []
        )
        expected = rd_row(
            case.logits[s].tolist(),
            items,
            temperature=2.0,
            mu=strategy.mu,
            weighting=weighting,
            renormalise=renormalise,
            relative=relative,
        )
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_static_until_the_start_epoch(make_random):
    case = make_random(0)
    strategy, static = RD(k=5, start_epoch=2), RD(k=5, weighting="static")
    expected = static(case.output(), case.batch)
    for epoch in (0, 2):
        strategy.on_epoch(epoch)
        assert strategy(case.output(), case.batch) == expected
    strategy.on_epoch(3)
    assert strategy(case.output(), case.batch) < expected


@pytest.mark.parametrize(
    ("option", "value"), [("k", 0), ("temperature", 0.0), ("mu", -1.0), ("weighting", "linear")]
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        RD(**{option: value})
