import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import KnowledgeError
from recdistill.knowledge import Knowledge
from recdistill.knowledge.checks import is_rank_matrix

ITEMS = 50


def scored(rows, seed, skill=2.0):
    """Distances (rows, ITEMS) of a teacher that brings targets nearer by `skill`, and the targets."""
    rng = np.random.default_rng(seed)
    distance = rng.normal(size=(rows, ITEMS)) + 10
    targets = rng.integers(ITEMS, size=rows)
    distance[np.arange(rows), targets] -= skill
    return distance.astype(np.float32), targets


def as_list(distance, width):
    order = np.argsort(distance, axis=1)[:, :width]
    return order.astype(np.int32), np.take_along_axis(distance, order, axis=1)


def as_ranks(distance, width):
    """What BIGRec's `rank` is, cut like a list."""
    return np.argsort(np.argsort(distance, axis=1), axis=1)[:, :width].astype(np.int32)


def knowledge(ranking, distance=None):
    return Knowledge(np.arange(len(ranking)), ITEMS, ranking=ranking, ranking_distance=distance)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), width=st.integers(5, ITEMS), rows=st.integers(5, 60))
def test_lists_pass_and_rank_matrices_do_not(seed, width, rows):
    distance, targets = scored(rows, seed)
    ranking, sorted_distance = as_list(distance, width)
    knowledge(ranking, sorted_distance).check(targets)
    with pytest.raises(KnowledgeError, match=r"rank of every item, not a list.*argsort\(argsort.*topk"):
        knowledge(as_ranks(distance, width), distance[:, :width]).check()


@pytest.mark.parametrize("width", [20, ITEMS])
def test_rank_matrix_without_its_distances_is_betrayed_by_the_targets(width):
    distance, targets = scored(400, seed=3)
    ranking, sorted_distance = as_list(distance, width)
    knowledge(ranking).check(targets)
    for wrong in (
        knowledge(as_ranks(distance, width)),
        knowledge(as_ranks(distance, width), sorted_distance),
    ):
        with pytest.raises(KnowledgeError, match="rank of every item"):
            wrong.check(targets)


def test_a_teacher_without_skill_is_not_mistaken_for_a_rank_matrix():
    for seed in range(20):
        distance, targets = scored(400, seed, skill=0.0)
        ranking, _ = as_list(distance, 20)
        assert not is_rank_matrix(ranking, None, targets)


def test_popular_items_with_small_ids_are_not_mistaken_for_ranks():
    rng = np.random.default_rng(0)
    for skill in (0.0, 1.0):
        distance, _ = scored(500, 1, skill=0.0)
        distance -= np.linspace(2, 0, ITEMS)  # ids ordered by popularity: small ids are listed most
        targets = rng.zipf(1.5, 500).clip(1, ITEMS) - 1
        distance[np.arange(500), targets] -= skill
        ranking, sorted_distance = as_list(distance.astype(np.float32), 20)
        assert not is_rank_matrix(ranking, sorted_distance, targets)


@pytest.mark.parametrize("width", [20, ITEMS])
def test_lists_of_popular_items_are_not_mistaken_for_ranks(width):
    """Where ids are ordered by popularity, this teacher lists 0, 1, 2, ...: entry j is j, like a rank."""
    targets = np.random.default_rng(0).zipf(1.5, 500).clip(1, ITEMS) - 1
    ranking = np.tile(np.arange(width), (500, 1))
    assert not is_rank_matrix(ranking, None, targets)


def test_lists_that_hold_their_targets_are_lists_whatever_stands_at_the_targets_place():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 20, size=400)
    ranking = np.stack([rng.permutation(ITEMS)[:20] for _ in targets])
    for row, target in zip(ranking, targets, strict=True):
        smallest = row.argmin()
        row[[smallest, target]] = row[[target, smallest]]
    assert is_rank_matrix(ranking, None, targets)
    ranking[np.arange(400), 0] = np.where((ranking == targets[:, None]).any(axis=1), ranking[:, 0], targets)
    assert not is_rank_matrix(ranking, None, targets)


LISTS = np.array([[3, 1, 0, 7], [4, 2, -1, -1]])
GROWING = np.array([[0.1, 0.2, 0.3, 0.3], [1.0, 2.0, np.nan, 0.0]])


@pytest.mark.parametrize(
    ("ranking", "distance", "message"),
    [
        ([[3, 1, 0, 50]], None, r"holds 50 in entry 0.*0\.\.49"),
        ([[3, 1, 2, -2]], None, "holds -2 in entry 0"),
        ([[1, 50, 2, 3], [4, 5, 6, 7]], None, "count from 1: subtract 1"),
        ([[1, 2, 3, 4], [3, 1, 3, 7]], None, "entry 1 of the ranking lists item 3 twice"),
        ([[3, -1, 0, 7]], None, "an item after a -1"),
        ([[3, 1, 0, 7]], [[0.3, 0.1, 0.2, 0.4]], "do not grow along the list"),
        ([[3, 1, 0, 7]], [[-0.1, 0.1, 0.2, 0.4]], "finite and >= 0"),
        ([[3, 1, 0, 7]], [[0.1, 0.2, np.nan, 0.4]], "finite and >= 0"),
        ([[3, 1, 0, 7]], [[0.1, 0.2, 0.3, np.inf]], "finite and >= 0"),
    ],
)
def test_wrong_lists_are_refused(ranking, distance, message):
    with pytest.raises(KnowledgeError, match=message):
        knowledge(np.array(ranking), None if distance is None else np.array(distance)).check()


def test_right_lists_pass():
    assert knowledge(LISTS, GROWING).check().ranking is not None
    nearly = np.array([[10.0, 9.9995, 11.0, 12.0]])  # ordered in another precision
    knowledge(LISTS[:1], nearly).check()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("target_distance", [0.1, np.inf], "holds inf in entry 1"),
        ("target_distance", [-0.1, 0.0], "non-negative, NaN where unknown"),
        ("target_rank", [0, ITEMS], r"0\.\.49, -1 where unknown"),
        ("target_rank_unseen", [-2, 0], "holds -2 in entry 0"),
        ("query_embeddings", [[0.0, 1.0], [np.nan, 0.0]], "holds nan in entry 1"),
    ],
)
def test_wrong_values_are_refused(field, value, message):
    wrong = dataclasses.replace(knowledge(LISTS), **{field: np.array(value)})
    with pytest.raises(KnowledgeError, match=message):
        wrong.check()


def test_overflown_float16_is_found_in_any_chunk(monkeypatch):
    monkeypatch.setattr("recdistill.knowledge.lists.CHUNK_ELEMENTS", 8)
    vectors = np.ones((ITEMS, 2), np.float16)
    vectors[43, 1] = np.inf
    with pytest.raises(KnowledgeError, match=r"holds inf in entry 43.*65504"):
        Knowledge(np.array([0]), ITEMS, item_embeddings=vectors).check()
