from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.losses.dros import propensity_scores
from recdistill.strategies import Importance
from recdistill.strategies.teacher_lists import teacher_list
from recdistill.types import Task
from references.strategies import dros_term, official_loss, official_weights, paper_weights, softplus

GAMMAS = (0.3, 0.5, 0.1)


def task(items: int = 40, **scales: float) -> Task:
    popularity = torch.arange(items).float() % 7
    return Task(items, 4, 4, popularity, scales=scales)


@pytest.fixture
def example(make_case):
    """Section 4.5: three listed items, of which the student's top 3 hold the first and the third."""
    return make_case(
        torch.tensor([[1.0, -0.5, 0.2, -2.0, 0.3]]),
        torch.tensor([[0, 1, 2]]),
        negatives=torch.tensor([[4]]),
        ranking_distance=torch.tensor([[0.2, 0.9, 1.0]]),
        target_distance=torch.tensor([0.5]),
        targets=torch.tensor([3]),
        history=torch.tensor([[3]]),
    )


def weights_of(strategy: Importance, case) -> torch.Tensor:
    listed = teacher_list(case.batch, strategy.k, exclude_target=False, exclude_history=False)
    return strategy.weights(case.output(), case.batch, listed)


LITERAL = [0.5136291622077495, 0.3438659148273005, 0.4182014503666759]
NORMALISED = [0.6028376165887632, 0.37668387117275604, 0.4302745018074309]
OFFICIAL = [0.5565209116717887, 0.2010154546000815, 0.24246363372812993]


@pytest.mark.parametrize(
    ("options", "weights", "loss"),
    [
        ({"variant": "paper"}, LITERAL, 0.7459947540851464),
        ({"variant": "paper", "position_normalised": True}, NORMALISED, 0.8131289223281297),
        ({"variant": "official"}, OFFICIAL, 0.9183541803496789),
        ({"variant": "official", "negative": "none"}, OFFICIAL, 0.9183541803496789 - 0.4031860488854579),
        ({"variant": "official", "negative": "true"}, OFFICIAL, 1.369523375932748),
    ],
)
def test_numbers_of_the_specification(example, options, weights, loss):
    strategy = Importance(k=3, **options)
    torch.testing.assert_close(weights_of(strategy, example), torch.tensor([weights]))
    assert strategy(example.output(), example.batch).item() == pytest.approx(loss, rel=1e-6)


def test_candidate_confidence_of_the_specification(example):
    strategy = Importance(variant="official", k=3, gamma_position=0, gamma_consistency=0, gamma_confidence=1)
    expected = [[0.5138972512178097, 0.25519382577337707, 0.23090892300881324]]
    torch.testing.assert_close(weights_of(strategy, example), torch.tensor(expected))


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([30.0, 35.0, 36.0], [0.33333540321565536, 0.3333323050348079, 0.33333229174953666]),
        ([0.01, 22.0, 23.0], [0.999999979413597, 1.0382251623570329e-08, 1.020415149007383e-08]),
    ],
)
def test_official_confidence_degenerates(example, distances, expected):
    strategy = Importance(variant="official", k=3, gamma_position=0, gamma_consistency=0)
    knowledge = replace(example.batch.knowledge, ranking_distance=torch.tensor([distances]))
    example.batch = replace(example.batch, knowledge=knowledge)
    torch.testing.assert_close(weights_of(strategy, example), torch.tensor([expected]), atol=1e-9, rtol=1e-6)


def test_corrected_confidence_of_the_specification(make_case):
    case = make_case(
        torch.zeros(3, 5), torch.tensor([[0], [1], [2]]), target_distance=torch.tensor([30.0, 35.0, 50.0])
    )
    strategy = Importance(
        variant="corrected", k=1, gamma_position=0, gamma_consistency=0, gamma_confidence=1, normalise="none"
    )
    strategy.prepare(task(5, target_distance=35.0))
    expected = [[1.2337575704006651], [1.0695171714298155], [0.6967252581695194]]
    torch.testing.assert_close(weights_of(strategy, case), torch.tensor(expected))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 8), beta=st.sampled_from([0.5, 1.0, 3.0]))
def test_paper_equals_the_naive_formula(make_random, seed, k, beta):
    case = make_random(seed)
    rows = Importance(k=k, beta_position=beta, beta_confidence=beta).per_row(case.output(), case.batch)
    knowledge = case.batch.knowledge
    for s, value in enumerate(rows.tolist()):
        logits = case.logits[s].tolist()
        items = [i for i in knowledge.ranking[s, :k].tolist() if i >= 0] if knowledge.covered[s] else []
        weights = paper_weights(logits, items, float(knowledge.target_distance[s]), GAMMAS, beta, k)
        expected = sum(w * softplus(-logits[i]) for w, i in zip(weights, items, strict=True))
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 8),
    alpha=st.sampled_from([0.0, 0.5]),
    radius=st.sampled_from([1.0, 2.0]),
    broadcast=st.booleans(),
)
def test_official_equals_the_authors_formula(make_random, seed, k, alpha, radius, broadcast):
    case, facts = make_random(seed, short=False), task()
    strategy = Importance(
        variant="official", k=k, dros_weight=alpha, dros_radius=radius, official_broadcast=broadcast
    )
    strategy.prepare(facts)
    items = case.batch.knowledge.ranking[:, :k].tolist()
    logits, distances = case.logits.tolist(), case.batch.knowledge.ranking_distance[:, :k].tolist()
    weights = [official_weights(f, i, d, GAMMAS, k) for f, i, d in zip(logits, items, distances, strict=True)]
    expected = official_loss(
        logits,
        items,
        weights,
        case.batch.negatives[:, 0].tolist(),
        alpha=alpha,
        p=propensity_scores(facts.popularity).tolist(),
        radius=radius,
        broadcast=broadcast and alpha > 0,
    )
    assert strategy(case.output(), case.batch).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("broadcast", "expected"), [(True, 1.5), (False, 1.1)])
def test_broadcast_of_the_specification(make_case, monkeypatch, broadcast, expected):
    """Weights (.9, .1) and DROS terms (2, 4); logits of 100 leave nothing of the other terms."""
    case = make_case(torch.full((2, 3), 100.0), torch.tensor([[0], [1]]))
    strategy = Importance(variant="official", k=1, dros_weight=1.0, official_broadcast=broadcast)
    monkeypatch.setattr(strategy, "weights", lambda *_: torch.tensor([[0.9], [0.1]]))
    monkeypatch.setattr(
        "recdistill.strategies.importance.dros_terms", lambda *_: torch.tensor([[2.0], [4.0]])
    )
    assert strategy(case.output(), case.batch).item() == pytest.approx(expected)


def test_corrected_weights_have_mean_row_sum_one_and_follow_the_distance(make_random):
    case = make_random(11, short=False)
    strategy = Importance(variant="corrected", k=8)
    strategy.prepare(task(target_distance=1.5))
    sums = weights_of(strategy, case).sum(1)
    assert sums.mean().item() == pytest.approx(1.0, rel=1e-5)
    near, far = case.batch.knowledge.target_distance.argmin(), case.batch.knowledge.target_distance.argmax()
    assert sums[near] > sums[far]


def test_corrected_negative_leaves_out_what_the_teacher_lists(example):
    strategy = Importance(variant="corrected", k=3)
    strategy.prepare(task(5, target_distance=0.5))
    weights = weights_of(strategy, example)
    positive = (weights * torch.nn.functional.softplus(-example.logits[:, :3])).sum().item()
    loss = strategy(example.output(), example.batch).item()
    assert loss == pytest.approx(positive + softplus(0.3), rel=1e-5)
    listed = replace(example.batch, negatives=torch.tensor([[1]]))
    assert strategy(example.output(), listed).item() == pytest.approx(positive, rel=1e-5)
    both = replace(example.batch, negatives=torch.tensor([[1, 4]]))
    assert strategy(example.output(), both).item() == pytest.approx(loss, rel=1e-5)
    none = replace(example.batch, negatives=None)
    assert strategy(example.output(), none).item() == pytest.approx(positive, rel=1e-5)


def test_a_row_without_a_distance_has_no_confidence(make_random):
    case = make_random(12, short=False)
    distance = case.batch.knowledge.target_distance.clone()
    distance[1] = float("nan")
    unknown = replace(case.batch, knowledge=replace(case.batch.knowledge, target_distance=distance))
    for variant in ("paper", "corrected"):
        strategy = Importance(variant=variant, gamma_position=0.0, gamma_consistency=0.0)
        strategy.prepare(task(target_distance=1.5))
        rows = strategy.per_row(case.output(), unknown)
        assert rows[1] == 0
        assert (rows[[0, 2, 3, 4, 5]] > 0).all()


def test_squared_distances(make_random):
    case = make_random(13)
    knowledge = case.batch.knowledge
    squared = replace(case.batch, knowledge=replace(knowledge, target_distance=knowledge.target_distance**2))
    torch.testing.assert_close(
        Importance(distance_power=2.0).per_row(case.output(), case.batch),
        Importance().per_row(case.output(), squared),
    )


def test_dros_term_alone(make_random):
    case, facts = make_random(14, short=False), task()
    options = {"gamma_position": 1.0, "gamma_confidence": 0.0, "gamma_consistency": 0.0, "k": 1}
    strategy = Importance(dros_weight=2.0, normalise="row", **options)
    strategy.prepare(facts)
    extra = strategy.per_row(case.output(), case.batch) - Importance(normalise="row", **options).per_row(
        case.output(), case.batch
    )
    p = propensity_scores(facts.popularity).tolist()
    for s, value in enumerate(extra.tolist()):
        item = int(case.batch.knowledge.ranking[s, 0])
        assert value == pytest.approx(2 * dros_term(case.logits[s].tolist(), item, p, 1.0), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"ranking", "target_distance"}),
        ({"variant": "official"}, {"ranking", "ranking_distance"}),
        ({"variant": "corrected"}, {"ranking", "target_distance"}),
        ({"gamma_confidence": 0.0}, {"ranking"}),
    ],
)
def test_requires_what_its_options_need(options, fields):
    assert Importance(**options).requires == fields


def test_without_confidence_no_distance_is_read(make_random):
    case = make_random(15)
    bare = replace(
        case.batch, knowledge=replace(case.batch.knowledge, target_distance=None, ranking_distance=None)
    )
    assert Importance(gamma_confidence=0.0)(case.output(), bare) > 0
    for variant, field in (("paper", "target_distance"), ("official", "ranking_distance")):
        with pytest.raises(KnowledgeError, match=field):
            Importance(variant=variant)(case.output(), bare)


def test_corrected_needs_the_median():
    with pytest.raises(KnowledgeError, match="median of 'target_distance'"):
        Importance(variant="corrected").prepare(task())


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "newest"},
        {"confidence": "row"},
        {"normalise": "column"},
        {"negative": "two"},
        {"k": 0},
        {"beta_confidence": 0.0},
        {"gamma_position": -0.1},
        {"dros_weight": float("nan")},
    ],
)
def test_refuses_values(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Importance(**options)
