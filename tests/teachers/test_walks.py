"""Walks against a naive walk, and against what they promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers import GraphScorer, default_count, take_walks
from recdistill.teachers.base import knowledge_from_scorer, plain
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def data():
    """The ring; items 3 and 4 are cold: they became 2 and 5."""
    plain_ring = ring_dataset(users=60)
    events = plain_ring.events.copy()
    events[events == 3], events[events == 4] = 2, 5
    found = replace(plain_ring, events=events)
    assert found.cold_items[[3, 4]].all()
    return found


def fixed(history):
    """Score by the last item alone: the next five items of the ring, in falling order."""
    scores = torch.full((len(history), ITEMS), -20.0)
    for step in range(1, 6):
        scores.scatter_(1, torch.from_numpy((history[:, -1:] + step) % ITEMS), float(-step))
    return scores


def test_a_walk_follows_the_best_warm_items_and_never_returns(data):
    cold = data.cold_items
    walks = take_walks(fixed, data, count=200, steps=4, breadth=3, temperature=0.5, top_k=6)
    assert walks.items.shape == (200, 5)
    assert not cold[walks.items].any()
    for walk in walks.items:
        assert len(set(walk)) == 5
        for step in range(1, 5):
            scores = fixed(walk[None, :step].astype(np.int64))[0]
            scores[torch.from_numpy(cold)] = -torch.inf
            scores[walk[:step]] = -torch.inf
            assert walk[step] in scores.topk(3).indices.tolist()


def test_every_warm_item_begins_equally_often(data):
    warm = int((~data.cold_items).sum())
    walks = take_walks(fixed, data, count=2 * warm + 1, steps=1)
    starts = np.bincount(walks.items[:, 0], minlength=ITEMS)[~data.cold_items]
    assert set(starts) <= {2, 3}
    assert starts.sum() == 2 * warm + 1
    assert default_count(data, 1) == warm
    rows = len(data.rows("train", prefixes=True))
    assert default_count(data, rows // 3) == 3
    assert default_count(data, 10 * rows) == 1


def test_answers_are_those_of_the_scorer_before_each_step(data):
    scorer = GraphScorer(data)
    walks = take_walks(scorer, data, count=25, steps=3, temperature=0.3, top_k=7)
    for walk in range(25):
        for step in range(3):
            row = walk * 3 + step
            history = walks.items[walk : walk + 1, : step + 1].astype(np.int64)
            logs = torch.log_softmax(scorer(history)[0] / 0.3, 0)
            following = walks.items[walk, step + 1]
            best = logs.topk(7)
            np.testing.assert_allclose(walks.answers.ranking_distance[row], -best.values, atol=1e-5)
            assert set(walks.answers.ranking[row]) == set(best.indices.tolist())
            assert walks.answers.target_distance[row] == pytest.approx(-float(logs[following]), abs=1e-5)
            assert walks.answers.target_rank[row] == int((logs >= logs[following]).sum()) - 1
            unseen = logs.clone()
            unseen[walks.items[walk, : step + 1]] = -torch.inf
            assert walks.answers.target_rank_unseen[row] == int((unseen >= logs[following]).sum()) - 1


def test_answers_agree_with_those_about_rows_of_the_dataset(data):
    scorer = GraphScorer(data)
    walks = take_walks(scorer, data, count=20, steps=3, temperature=0.3, top_k=7)
    joined, ids = data.with_sequences(walks.items.astype(np.int64))
    rows = joined.positions_of(ids)
    known = knowledge_from_scorer(plain(scorer), joined, rows, length=50, top_k=7, temperature=0.3)
    for name in ("ranking", "target_rank", "target_rank_unseen"):
        np.testing.assert_array_equal(getattr(walks.answers, name), getattr(known, name))
    for name in ("ranking_distance", "target_distance"):
        np.testing.assert_allclose(getattr(walks.answers, name), getattr(known, name), atol=1e-5)


def test_steps_are_drawn_by_the_softmax(data):
    """4,000 first steps from every item: shares within four standard deviations of eq. 1."""
    walks = take_walks(fixed, data, count=4000, steps=1, breadth=3, temperature=1.5)
    gaps = (walks.items[:, 1] - walks.items[:, 0]) % ITEMS
    wanted = torch.softmax(torch.tensor([-1.0, -2.0, -3.0]) / 1.5, 0).numpy()
    cold = np.flatnonzero(data.cold_items)
    gaps = gaps[~np.isin(walks.items[:, 0], (cold[:, None] - [1, 2, 3]) % ITEMS)]  # no cold item was in reach
    shares = np.array([(gaps == gap).mean() for gap in (1, 2, 3)])
    assert (np.abs(shares - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(gaps))).all()


def test_the_seed_decides(data):
    first, again, other = (take_walks(fixed, data, count=40, seed=seed).items for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 0}, "at least 1 walk"),
        ({"steps": 0}, "1 to"),
        ({"steps": ITEMS}, "fewer than items of training"),
        ({"breadth": 0}, "at least 1 item"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_numbers_out_of_range_are_refused(data, changed, message):
    with pytest.raises(ConfigError, match=message):
        take_walks(fixed, data, **({"count": 5} | changed))
