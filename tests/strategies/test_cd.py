from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.strategies import CD
from recdistill.strategies.cd import best_of_two
from recdistill.strategies.draws import draw_columns
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.types import PAD, Task
from references.ranking_strategies import cd_terms, list_scores
from references.strategies import top_items


@pytest.fixture
def example(make_case, monkeypatch):
    """Section 1.2 of the specification: three items whose teacher scores are 3, 1 and -2."""
    case = make_case(
        torch.tensor([[1.0, 0.0, -1.0, 5.0]]),
        torch.tensor([[0, 1, 2]]),
        ranking_distance=torch.tensor([[-3.0, -1.0, 2.0]]),
    )
    monkeypatch.setattr(CD, "draw", lambda *_: torch.tensor([[0, 1, 2]]))
    return case


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 1.7710375007727426), ("mean", 0.5903458335909142)]
)
def test_numbers_of_the_specification(example, reduction, expected):
    strategy = CD(standardise=False, reduction=reduction)
    loss = strategy(example.output(), example.batch)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_specification(example):
    CD(standardise=False, reduction="sum")(example.output(), example.batch).backward()
    expected = torch.tensor([[-0.08651589756363876, -0.1224593312018546, 0.0, 0.0]])
    torch.testing.assert_close(example.logits.grad, expected)


def test_no_gradient_at_the_teachers_logit(example):
    """At f = (t + t2) / t1 the loss is the entropy of q, its least value."""
    example.logits.data[0, :3] = (torch.tensor([3.0, 1.0, -2.0]) + 0.7) / 1.5
    loss = CD(standardise=False, scale=1.5, shift=0.7)(example.output(), example.batch)
    loss.backward()
    assert example.logits.grad.abs().max() < 1e-7
    q = torch.sigmoid(example.logits[0, :3]).double()
    entropy = -(q * q.log() + (1 - q) * (1 - q).log()).mean()
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-6)


def test_best_of_two_has_the_law_of_the_specification():
    torch.manual_seed(0)
    counts = torch.bincount(best_of_two(torch.full((100, 1), 4), 1000).flatten(), minlength=4) / 1e5
    assert (counts - torch.tensor([0.4375, 0.3125, 0.1875, 0.0625])).abs().max() < 0.01


def test_kernel_of_the_specification():
    torch.manual_seed(0)
    columns, _ = draw_columns((-torch.arange(4) / 2.0).expand(50_000, -1), 1)
    shares = torch.bincount(columns.flatten(), minlength=4) / 50_000
    expected = [0.45505423392341127, 0.27600434470659363, 0.16740509727844333, 0.1015363240915518]
    assert (shares - torch.tensor(expected)).abs().max() < 0.01


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("distances", [True, False])
@pytest.mark.parametrize("kernel", ["best_of_two", "exponential"])
@pytest.mark.parametrize("guide", ["teacher", "student"])
def test_equals_the_naive_formula_on_its_draw(
    make_random, monkeypatch, guide, kernel, distances, standardise
):
    case = make_random(1)
    known = case.batch.knowledge
    batch = case.batch if distances else replace(case.batch, knowledge=replace(known, ranking_distance=None))
    strategy = CD(guide=guide, kernel=kernel, samples=6, standardise=standardise, gap=0.5)
    torch.manual_seed(2)
    items = strategy.draw(
        case.output(), batch, teacher_list(batch, 3000, exclude_target=True, exclude_history=False)
    )
    monkeypatch.setattr(strategy, "draw", lambda *_: items)
    for s, value in enumerate(strategy.per_row(case.output(), batch).tolist()):
        drawn = [i for i in items[s].tolist() if i != PAD]
        assert int(batch.targets[s]) not in drawn
        listed = [i for i in known.ranking[s].tolist() if i != PAD]
        expected = 0.0
        if bool(known.covered[s]) and set(listed) - {int(batch.targets[s])}:
            teacher = list_scores(
                listed, known.ranking_distance[s].tolist() if distances else None, drawn, 0.5, standardise
            )
            terms = cd_terms([case.logits[s, i].item() for i in drawn], teacher, 2.0, 0.0)
            expected = sum(terms) / len(terms)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_teachers_half_and_the_other_half(make_random):
    case = make_random(3, short=False)
    strategy = CD(samples=9)
    listed = teacher_list(case.batch, 3000, exclude_target=True, exclude_history=False)
    items = strategy.draw(case.output(), case.batch, listed)
    for s in range(6):
        ranking = case.batch.knowledge.ranking[s].tolist()
        assert [item in ranking for item in items[s].tolist()] == [True] * 5 + [False] * 4


def test_the_student_guides_to_its_own_top(make_random):
    case = make_random(4, short=False)
    strategy = CD(guide="student", samples=20, pool=10)
    listed = teacher_list(case.batch, 3000, exclude_target=True, exclude_history=False)
    items = strategy.draw(case.output(), case.batch, listed)
    for s in range(6):
        top = top_items(case.logits[s].tolist(), 10)
        assert set(items[s].tolist()) - {PAD} <= top


def test_the_estimated_top_is_near_the_true_one(make_random):
    case = make_random(5, items=4000, short=False)
    strategy = CD(guide="student", samples=200, pool=400, candidates=1000)
    listed = teacher_list(case.batch, 3000, exclude_target=True, exclude_history=False)
    torch.manual_seed(0)
    items = strategy.draw(case.output(), case.batch, listed)
    ranks = (case.logits.unsqueeze(1) > case.logits.gather(1, items.clamp_min(0)).unsqueeze(2)).sum(2)
    assert (ranks < 520).float().mean() > 0.99
    assert 100 < ranks.float().mean() < 170  # of the better of two below 400: a third of it


@pytest.mark.parametrize("source", ["dot", "cosine", "l2", "squared_l2"])
def test_scores_from_vectors(make_random, source):
    case = make_random(6, short=False)
    generator = torch.Generator().manual_seed(0)
    queries, vectors = (3 + torch.randn(n, 5, generator=generator) for n in (6, 40))
    batch = replace(case.batch, knowledge=replace(case.batch.knowledge, query_embeddings=queries))
    strategy = CD(teacher_scores=source, standardise=False)
    assert strategy.requires == {"ranking", "query_embeddings", "item_embeddings"}
    strategy.prepare(Task(40, 4, 4, torch.ones(40), item_embeddings=vectors))
    items = torch.randint(40, (6, 7), generator=generator)
    found = strategy.teacher(batch, items)
    everything = strategy.teacher.catalogue(strategy.teacher.queries(batch.knowledge))
    shift = found - everything.gather(1, items)
    for s in range(6):
        for n, item in enumerate(items[s].tolist()):
            g, z = queries[s].tolist(), vectors[item].tolist()
            dot = sum(a * b for a, b in zip(g, z, strict=True))
            far = sum((a - b) ** 2 for a, b in zip(g, z, strict=True))
            size = math.sqrt(sum(a * a for a in g)) * math.sqrt(sum(b * b for b in z))
            expected = {"dot": dot, "cosine": dot / size, "l2": -math.sqrt(far), "squared_l2": -far}[source]
            assert found[s, n].item() == pytest.approx(expected, rel=1e-4)
    assert shift.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("guide", "me"),
        ("kernel", "flat"),
        ("samples", 0),
        ("scale", 0.0),
        ("teacher_scores", "l1"),
        ("gap", -1),
    ],
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        CD(**{option: value})
