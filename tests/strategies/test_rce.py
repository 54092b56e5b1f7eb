from __future__ import annotations

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.strategies import RCE
from recdistill.strategies.draws import draw_columns
from recdistill.strategies.lookup import place_in
from recdistill.types import PAD
from references.ranking_strategies import cross_entropy, list_scores, rce

TEACHER = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
STUDENT = torch.tensor([[-0.5, 1.0, 1.5, 0.5]])


@pytest.fixture
def example(make_case):
    """Section 5.1 of the specification: items a, b, c, d, all of them listed, so that their scores are exact."""
    logits = torch.cat([STUDENT, torch.tensor([[-9.0]])], dim=1)
    return make_case(logits, torch.tensor([[0, 1, 2, 3]]), ranking_distance=-TEACHER)


def with_sample(strategy: RCE, sample: torch.Tensor, monkeypatch) -> RCE:
    """The strategy, with A = the given columns of the student's ranking."""
    monkeypatch.setattr(
        "recdistill.strategies.rce.draw_columns",
        lambda weights, _: (sample, torch.ones_like(sample, dtype=torch.bool)),
    )
    return strategy


def test_numbers_of_the_specification(example, monkeypatch):
    """A = {c, d}: c is first and d third in the student's ranking."""
    strategy = with_sample(RCE(k=2, pool=4, standardise=False), torch.tensor([[0, 2]]), monkeypatch)
    own, others, gamma = strategy.sets(example.output(), example.batch)
    assert set(own[own != PAD].tolist()) == {1, 2}
    assert set(others[others != PAD].tolist()) == {0, 2, 3}
    assert gamma.tolist() == [1.0]
    assert strategy(example.output(), example.batch).item() == pytest.approx(2.1372054995411256, rel=1e-6)


@pytest.mark.parametrize(
    ("items", "expected"), [([1, 2], 0.8396062734951091), ([2, 3, 0], 2.1372054995411256)]
)
def test_cross_entropy_of_the_specification(items, expected):
    mask = torch.ones(1, len(items), dtype=torch.bool)
    value = RCE().cross_entropy(TEACHER[:, items], STUDENT[:, items], mask)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert cross_entropy(TEACHER[0, items].tolist(), STUDENT[0, items].tolist(), 1.0) == pytest.approx(
        expected
    )


def test_half_an_overlap(example, monkeypatch):
    """A = {b, d} holds one of the teacher's two: gamma = exp(-3/2)."""
    strategy = with_sample(RCE(k=2, pool=4, standardise=False), torch.tensor([[1, 2]]), monkeypatch)
    _, _, gamma = strategy.sets(example.output(), example.batch)
    assert gamma.item() == pytest.approx(0.22313016014842982, rel=1e-6)
    on_own, on_others = 0.8396062734951091, 2.1372054995411256
    assert (1 - gamma.item()) * on_own + gamma.item() * on_others == pytest.approx(
        1.1291397966112355, rel=1e-6
    )
    expected = rce(
        dict(enumerate(TEACHER[0].tolist())),
        dict(enumerate(STUDENT[0].tolist())),
        ({1, 2}, {0, 1}, {1, 3}),
        3.0,
        1.0,
    )
    assert strategy(example.output(), example.batch).item() == pytest.approx(expected, rel=1e-6)


def test_probabilities_of_the_draw():
    weights = RCE().log_weights(torch.tensor([[False, True, False, True, False]]))
    expected = [0.21605712, 0.21605712, 0.19549657, 0.19549657, 0.17689261]
    assert weights.softmax(1)[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert RCE().log_weights(torch.ones(1, 80, dtype=torch.bool)).max().item() == pytest.approx(5.1)


@pytest.mark.parametrize("gamma_beta", [0.0, 3.0])
def test_one_set_is_the_plain_cross_entropy(make_case, gamma_beta):
    """Q^T = Q^S = A: every gamma gives the cross-entropy on that set."""
    logits = torch.tensor([[4.0, 3.0, 2.5, 0.1, 0.0, -1.0]])
    case = make_case(logits, torch.tensor([[2, 0, 1]]), ranking_distance=torch.tensor([[0.5, 1.0, 3.0]]))
    strategy = RCE(k=3, samples=3, pool=3, beta=gamma_beta, standardise=False, temperature=2.0)
    expected = cross_entropy([-0.5, -1.0, -3.0], [2.5, 4.0, 3.0], 2.0)
    assert strategy(case.output(), case.batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_naive_formula(make_random, seed, target, history):
    """With m = n nothing is left to chance: A is the student's whole top n."""
    case = make_random(seed)
    strategy = RCE(
        k=4,
        samples=6,
        pool=6,
        beta=2.0,
        temperature=1.5,
        gap=0.5,
        exclude_target=target,
        exclude_history=history,
    )
    known = case.batch.knowledge
    for s, value in enumerate(strategy.per_row(case.output(computed=False), case.batch).tolist()):
        banned = set(case.batch.history[s].tolist()) if history else set()
        banned |= {int(case.batch.targets[s])} if target else set()
        width = 8 if history else 4 + int(target)
        top = [i for i in known.ranking[s, :width].tolist() if i != PAD and i not in banned][:4]
        expected = 0.0
        if top and bool(known.covered[s]):
            logits = case.logits[s].tolist()
            order = [i for i in sorted(range(40), key=lambda i: -logits[i]) if i not in banned]
            ranking = [i for i in known.ranking[s].tolist() if i != PAD]
            teacher = list_scores(ranking, known.ranking_distance[s].tolist(), list(range(40)), 0.5, True)
            sets = (set(order[:4]), set(top), set(order[:6]))
            expected = rce(dict(enumerate(teacher)), dict(enumerate(logits)), sets, 2.0, 1.5)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_sample_is_of_the_students_top(make_random):
    case = make_random(4, short=False)
    strategy = RCE(k=4, samples=5, pool=12)
    own, others, _ = strategy.sets(case.output(), case.batch)
    for s in range(6):
        target = int(case.batch.targets[s])
        order = [i for i in case.logits[s].argsort(descending=True).tolist() if i != target]
        assert [i for i in own[s].tolist() if i != PAD] == order[:4]
        sampled = [i for i in others[s, :5].tolist() if i != PAD]
        assert len(sampled) == 5
        assert set(sampled) <= set(order[:12])
        missed = [i for i in others[s, 5:].tolist() if i != PAD]
        assert not set(missed) & (set(sampled) | set(order[:4]))


def test_teachers_items_below_favour_a_place():
    flags = torch.zeros(20_000, 6, dtype=torch.bool)
    flags[:, 2] = True
    torch.manual_seed(0)
    columns, _ = draw_columns(RCE(sharpness=0.5).log_weights(flags), 1)
    shares = torch.bincount(columns.flatten(), minlength=6) / 20_000
    high, low = (
        torch.tensor([4.0, 2.0]).exp().tolist()
    )  # c = 1 down to the place of the teacher's item, then 0
    expected = torch.tensor([high] * 3 + [low] * 3) / (3 * high + 3 * low)
    assert (shares - expected).abs().max() < 0.015


def test_places():
    lists = torch.tensor([[7, 3, PAD, 5], [PAD, PAD, PAD, PAD]])
    items = torch.tensor([[5, PAD, 7, 4], [3, PAD, 0, 1]])
    assert place_in(lists, items).tolist() == [[3, PAD, 0, PAD], [PAD] * 4]
    assert place_in(lists[:, :0], items).tolist() == [[PAD] * 4] * 2


@pytest.mark.parametrize(
    ("option", "value"), [("k", 0), ("samples", 0), ("beta", -1.0), ("temperature", 0.0), ("sharpness", 0.0)]
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        RCE(**{option: value})
