import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.grounding.grounder import Grounder
from recdistill.teachers.grounding.injection import (
    Injection,
    choose_gamma,
    collaborative,
    ground_injected,
    min_max,
    popularity,
)
from references.grounding import distances, target_ranks

D = 6


@pytest.fixture
def asked(walks):
    """Item vectors, queries that lean to the row's target, and the rows."""
    rng = np.random.default_rng(0)
    items = rng.standard_normal((24, D)).astype(np.float32)
    items[8] = items[2]
    usable = np.array([bool(title) for title in walks.catalogue.titles])
    rows = walks.rows("valid")
    queries = (0.4 * items[walks.targets(rows)] + rng.standard_normal((len(rows), D))).astype(np.float32)
    return items, usable, rows, queries


def naive_scores(items, usable, queries, support, gamma, guard=0.0):
    """The two formulas of spec 2.6, one number at a time."""
    exact = distances(queries, items, "l2")
    exact[:, 8] = exact[:, 2]
    scores = np.full(exact.shape, np.inf)
    for s, row in enumerate(exact):
        low, high = row[usable].min(), row[usable].max()
        for i in np.flatnonzero(usable):
            scores[s, i] = ((row[i] - low) / (high - low) + guard) * (1 + support[s][i]) ** -gamma
    return scores


def naive_popularity(data):
    counts = np.zeros(data.item_count)
    for row in data.rows("train"):
        counts[data.targets(np.array([row]))[0]] += 1
    counts /= counts.sum()
    return (counts - counts.min()) / (counts.max() - counts.min())


@pytest.mark.parametrize(("gamma", "guard"), [(0.0, 0.0), (0.7, 0.0), (3.0, 0.1), (99.0, 0.0)])
def test_scores_and_ranks_agree_with_the_formula(walks, asked, gamma, guard):
    items, usable, rows, queries = asked
    support = naive_popularity(walks)
    assert support.min() == 0
    assert support.max() == 1
    scores = naive_scores(items, usable, queries, [support] * len(rows), gamma, guard)
    injection = Injection("popularity", popularity(walks).support, gamma, guard)
    found = ground_injected(injection, Grounder(items, usable, device="cpu"), queries, rows, walks, top_k=5)
    expected = np.argsort(scores, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.ranking, expected)
    np.testing.assert_allclose(found.ranking_distance, np.sort(scores, axis=1)[:, :5], rtol=1e-4, atol=1e-6)
    histories = [walks.histories(np.array([row]), 50)[0].tolist() for row in rows]
    kept, unseen = target_ranks(scores, usable, walks.targets(rows), histories)
    np.testing.assert_array_equal(found.target_rank, kept)
    np.testing.assert_array_equal(found.target_rank_unseen, unseen)


def test_gamma_zero_is_plain_grounding(walks, asked):
    items, usable, rows, queries = asked
    grounder = Grounder(items, usable, device="cpu")
    plain = grounder.ground(queries, walks.targets(rows), walks.seen(rows), top_k=24)
    found = ground_injected(popularity(walks), grounder, queries, rows, walks, top_k=24)
    np.testing.assert_array_equal(found.ranking, plain.ranking)
    np.testing.assert_array_equal(found.target_rank, plain.target_rank)
    np.testing.assert_array_equal(found.target_rank_unseen, plain.target_rank_unseen)


@pytest.mark.parametrize("gamma", [0.1, 5.0, 99.0])
def test_without_a_guard_the_first_item_never_changes(walks, asked, gamma):
    items, usable, rows, queries = asked
    grounder = Grounder(items, usable, device="cpu")
    nearest = grounder.ground(queries, walks.targets(rows), walks.seen(rows), top_k=1).ranking
    kept = Injection("popularity", popularity(walks).support, gamma)
    np.testing.assert_array_equal(
        ground_injected(kept, grounder, queries, rows, walks, top_k=1).ranking, nearest
    )
    guarded = Injection("popularity", popularity(walks).support, gamma, zero_guard=1.0)
    changed = ground_injected(guarded, grounder, queries, rows, walks, top_k=1).ranking
    assert gamma < 1 or (changed != nearest).any()


def test_more_support_never_ranks_worse_as_gamma_grows():
    distance = torch.tensor([[0.0, 4.0, 4.0, 1.0, 2.5, 9.0]])
    support = torch.tensor([[0.0, 0.1, 0.9, 0.0, 0.2, 1.0]])
    before = None
    for gamma in (0.0, 0.01, 0.5, 1.0, 4.0, 30.0):
        score = Injection("x", lambda rows: support, gamma).score(distance, support)[0]
        assert gamma == 0 or score[2] < score[1]  # equal distance, more support
        behind = {
            (i, j)
            for i in range(6)
            for j in range(6)
            if support[0, i] > support[0, j] and score[i] > score[j]
        }
        assert before is None or behind <= before  # who has more support never falls behind anew
        before = behind
    assert before == {
        (i, 0) for i in (1, 2, 4, 5)
    }  # all but the nearest, which nothing overtakes, are overtaken


def test_gamma_is_the_best_on_validation(walks, asked):
    items, usable, rows, queries = asked
    gammas = (3.0, 0.0, 0.5, 1.0, 0.5)
    chosen, found = choose_gamma(
        popularity(walks), Grounder(items, usable, device="cpu"), queries, rows, walks, gammas=gammas, k=5
    )
    assert list(found) == [0.0, 0.5, 1.0, 3.0]
    support = naive_popularity(walks)
    for gamma, value in found.items():
        scores = naive_scores(items, usable, queries, [support] * len(rows), gamma)
        kept, _ = target_ranks(scores, usable, walks.targets(rows), [[]] * len(rows))
        expected = np.mean([1 / np.log2(rank + 2) if rank < 5 else 0.0 for rank in kept])
        assert value == pytest.approx(expected, abs=1e-9)
    assert chosen.gamma == max(found, key=lambda gamma: (found[gamma], -gamma))


def test_equally_good_gammas_give_the_smallest(walks, asked):
    items, usable, rows, queries = asked
    nothing = Injection("none", lambda rows: torch.zeros(1, 24))
    chosen, found = choose_gamma(
        nothing, Grounder(items, usable), queries, rows, walks, gammas=(2.0, 1.0, 4.0)
    )
    assert len(set(found.values())) == 1
    assert chosen.gamma == 1.0


def test_collaborative_support_is_min_max_of_each_row(walks, asked):
    items, usable, rows, queries = asked
    raw = torch.from_numpy(np.random.default_rng(3).standard_normal((len(walks.row_ids), 24))).float()
    asked_length = []

    def scorer(at, histories):
        asked_length.append(histories.shape[1])
        return raw[torch.from_numpy(at)]

    injection = collaborative(scorer, walks, 9, "model abc")
    assert injection.kind == "collaborative:model abc"
    given = raw[torch.from_numpy(rows)].double().numpy()
    support = (given - given.min(1, keepdims=True)) / (
        given.max(1, keepdims=True) - given.min(1, keepdims=True)
    )
    scores = naive_scores(items, usable, queries, support, 2.0)
    found = ground_injected(
        Injection("x", injection.support, 2.0),
        Grounder(items, usable, device="cpu"),
        queries,
        rows,
        walks,
        top_k=5,
    )
    np.testing.assert_array_equal(found.ranking, np.argsort(scores, axis=1, kind="stable")[:, :5])
    assert set(asked_length) == {9}


def test_beams_stay_first_under_injection(walks, asked):
    items, usable, rows, queries = asked
    named, beams = np.full((len(rows), 2), [20, 11]), np.tile([0, 1], (len(rows), 1))
    injection = Injection("popularity", popularity(walks).support, 1.0)
    found = ground_injected(
        injection, Grounder(items, usable), queries, rows, walks, top_k=6, beams=(named, beams)
    )
    np.testing.assert_array_equal(found.ranking[:, :2], named)
    assert (np.diff(found.ranking_distance) >= 0).all()


def test_a_row_of_equal_scores_has_no_support():
    torch.testing.assert_close(
        min_max(torch.tensor([[3.0, 3.0], [1.0, 5.0]])), torch.tensor([[0.0, 0], [0, 1]])
    )


@pytest.mark.parametrize("wrong", [{"gamma": -1.0}, {"zero_guard": -0.1}, {"gamma": float("nan")}])
def test_negative_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="--gamma"):
        Injection("x", lambda rows: torch.zeros(1, 1), **wrong)
