import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import KnowledgeError
from recdistill.knowledge import Knowledge
from recdistill.types import PAD


def small(**changes):
    fields = {
        "row_ids": np.array([2, 5, 9]),
        "item_count": 6,
        "ranking": np.array([[3, 1, 0], [4, 2, -1], [5, -1, -1]]),
        "ranking_distance": np.array([[0.1, 0.2, 0.9], [0.5, 0.5, 7.0], [1.0, 3.0, 2.0]]),
        "target_distance": np.array([0.2, np.nan, 4.0]),
        "target_rank": np.array([1, -1, 5]),
        "target_rank_unseen": np.array([0, -1, 5]),
        "query_embeddings": np.arange(6.0).reshape(3, 2),
        "item_embeddings": np.arange(12.0).reshape(6, 2),
        "manifest": {"teacher": "toy", "metric": "l2"},
    }
    return Knowledge(**{**fields, **changes})


def test_stored_types():
    types = {name: str(array.dtype) for name, array in small().check().fields.items()}
    assert types["ranking"] == types["target_rank"] == "int32"
    assert types["ranking_distance"] == types["query_embeddings"] == "float32"
    assert str(small(item_embeddings=np.ones((6, 2), np.float16)).item_embeddings.dtype) == "float16"


def test_rows_for_joins_by_id():
    said = small().rows_for(torch.tensor([9, 4, 2, 9]))
    assert said.covered.tolist() == [True, False, True, True]
    assert said.ranking.dtype == torch.int64
    assert said.ranking.tolist() == [[5, PAD, PAD], [PAD] * 3, [3, 1, 0], [5, PAD, PAD]]
    nan = float("nan")
    expected = torch.tensor([[1, nan, nan], [nan] * 3, [0.1, 0.2, 0.9], [1, nan, nan]])
    torch.testing.assert_close(said.ranking_distance, expected, equal_nan=True)
    torch.testing.assert_close(said.target_distance, torch.tensor([4, nan, 0.2, 4]), equal_nan=True)
    assert said.query_embeddings.tolist() == [[4, 5], [0, 0], [0, 1], [4, 5]]


def test_absent_fields_stay_absent():
    said = Knowledge(np.array([1]), 4).rows_for(np.array([1, 2]))
    assert said.covered.tolist() == [True, False]
    assert said.ranking is said.ranking_distance is said.target_distance is said.query_embeddings is None


def test_no_rows_at_all():
    empty = Knowledge(
        np.empty(0, np.int64), 6, ranking=np.empty((0, 3), np.int32), item_embeddings=np.ones((6, 2))
    )
    said = empty.check().rows_for(torch.tensor([0, 7]))
    assert not said.covered.any()
    assert said.ranking.tolist() == [[PAD] * 3] * 2


def test_float16_is_cast_when_read():
    half = small(
        query_embeddings=np.ones((3, 2), np.float16), item_embeddings=np.full((6, 2), 0.5, np.float16)
    )
    assert half.rows_for(np.array([2])).query_embeddings.dtype == torch.float32
    assert half.item_table.dtype == torch.float32
    assert half.score(np.array([2]), np.array([[0]])).dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_for_equals_a_dictionary(data):
    ids = data.draw(st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=20).map(sorted))
    items, width = 12, data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ranking = np.stack([rng.permutation(items)[:width] for _ in ids]).astype(np.int32)
    distance = np.sort(rng.random((len(ids), width)).astype(np.float32), axis=1)
    knowledge = Knowledge(np.array(ids), items, ranking=ranking, ranking_distance=distance)
    asked = data.draw(st.lists(st.integers(0, 45), max_size=12))
    said = knowledge.rows_for(np.array(asked, dtype=np.int64))
    table = dict(zip(ids, zip(ranking.tolist(), distance.tolist(), strict=True), strict=True))
    for index, row in enumerate(asked):
        assert bool(said.covered[index]) == (row in table)
        assert said.ranking[index].tolist() == (table[row][0] if row in table else [PAD] * width)
        if row in table:
            np.testing.assert_allclose(said.ranking_distance[index], table[row][1])
        else:
            assert said.ranking_distance[index].isnan().all()


def test_order_of_the_rows_asked_does_not_matter(dataset, knowledge):
    rng = np.random.default_rng(3)
    asked = rng.permutation(dataset.row_ids)
    shuffled, straight = knowledge.rows_for(asked), knowledge.rows_for(dataset.row_ids)
    back = np.argsort(asked)
    for name in ("ranking", "ranking_distance", "target_distance", "query_embeddings"):
        assert torch.equal(getattr(shuffled, name)[back], getattr(straight, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_ids": np.array([2, 9, 5])}, "not ascending and unique: 9 is followed by 5"),
        ({"row_ids": np.array([2, 2, 5])}, "not ascending and unique: 2 is followed by 2"),
        ({"row_ids": np.array([1.0, 2.0, 3.0])}, "row_ids is an array of float64"),
        ({"ranking": np.zeros((3, 3))}, "ranking is an array of float64"),
        ({"ranking": np.array([0, 1, 2])}, r"shape \(3,\)"),
        ({"ranking": np.zeros((3, 0), np.int32), "ranking_distance": None}, "none but the first empty"),
        ({"ranking": np.full((3, 3), 2**40)}, "does not fit into int32"),
        ({"ranking": np.zeros((2, 3), np.int32)}, "ranking has 2 entries for 3 row ids"),
        ({"ranking_distance": np.zeros((3, 2))}, r"ranking_distance has shape \(3, 2\)"),
        ({"ranking": None}, "the ranking None"),
        ({"item_embeddings": np.zeros((5, 2))}, "item_embeddings has 5 entries for 6 items"),
        ({"item_embeddings": np.zeros((6, 3))}, "2 dimensions, item embeddings 3"),
    ],
)
def test_wrong_structure_is_refused(changes, message):
    with pytest.raises(KnowledgeError, match=message):
        small(**changes)


def test_select_by_policy():
    knowledge, asked = small(), np.array([9, 3, 2])
    assert knowledge.select("mask", asked).tolist() == [9, 3, 2]
    assert knowledge.select("skip", asked).tolist() == [9, 2]
    assert knowledge.select("error", asked[[0, 2]]).tolist() == [9, 2]
    with pytest.raises(KnowledgeError, match=r"1 of 3 rows .* row 3.*recdistill teach toy --dataset"):
        knowledge.select("error", asked)
    with pytest.raises(KnowledgeError, match=r"'drop' does not exist. Allowed: error, skip, mask"):
        knowledge.select("drop", asked)


def test_coverage():
    assert small().coverage(np.array([2, 3, 5, 6])) == 0.5
    assert small().coverage(np.array([], dtype=np.int64)) == 1.0


def test_scales_are_medians_over_listed_items_of_the_rows():
    scales = small().scales(
        np.array([2, 5, 7])
    )  # the 7.0 stands at a pad, the nan is unknown, row 7 uncovered
    assert scales == pytest.approx(
        {"target_distance": 0.2, "ranking_distance": np.median([0.1, 0.2, 0.9, 0.5, 0.5])}
    )
    assert small(target_distance=None).scales(np.array([7])) == {}


def test_top_gives_views():
    knowledge = small()
    cut = knowledge.top(2)
    assert cut.ranking.tolist() == [[3, 1], [4, 2], [5, -1]]
    assert np.shares_memory(cut.ranking_distance, knowledge.ranking_distance)
    assert small(ranking=None, ranking_distance=None).top(2).ranking is None


def test_without_duplicates_keeps_the_first_of_each_title():
    groups = np.array([0, 0, 2, 0, 4, 4])  # items 0, 1, 3 share a title, 4 and 5 another
    single = small().without_duplicates(groups).check()
    assert single.ranking.tolist() == [[3, -1, -1], [4, 2, -1], [5, -1, -1]]
    assert single.ranking_distance[0, 0] == np.float32(0.1)
    assert np.isnan(single.ranking_distance[0, 1:]).all()
    assert single.target_rank.tolist() == [1, -1, 5]
    assert single.manifest["title_duplicates"]


def test_it_is_frozen_and_says_what_it_holds():
    knowledge = small()
    with pytest.raises(dataclasses.FrozenInstanceError):
        knowledge.item_count = 3
    assert repr(knowledge).startswith("Knowledge(3 rows, 6 items, ranking")
    with pytest.raises(KnowledgeError, match="no item embeddings"):
        _ = small(item_embeddings=None).item_table
