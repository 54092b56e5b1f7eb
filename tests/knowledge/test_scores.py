import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import KnowledgeError
from recdistill.knowledge import METRICS, Knowledge
from references.teacher_scores import exact, from_list


def with_vectors(metric, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return Knowledge(
        np.array([4, 7, 8]),
        9,
        query_embeddings=rng.normal(size=(3, 5)).astype(dtype),
        item_embeddings=rng.normal(size=(9, 5)).astype(dtype),
        manifest={"metric": metric},
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_scores(metric, dtype):
    knowledge = with_vectors(metric, dtype=dtype)
    rows, items = np.array([8, 4]), np.array([[0, 8, 3], [2, 2, 5]])
    scores = knowledge.score(rows, items, temperature=2.0)
    for i, query in enumerate(knowledge.query_embeddings[[2, 0]].astype(float).tolist()):
        expected = [
            exact(query, knowledge.item_embeddings[j].astype(float).tolist(), metric) / 2 for j in items[i]
        ]
        np.testing.assert_allclose(scores[i], expected, rtol=1e-5, atol=1e-6)
    every = knowledge.score(rows, temperature=2.0)
    torch.testing.assert_close(every.gather(1, torch.from_numpy(items)), scores, rtol=1e-4, atol=1e-5)


def test_a_large_common_mean_costs_no_digits():
    plain = with_vectors("squared_l2")
    moved = dataclasses.replace(
        plain, query_embeddings=plain.query_embeddings + 300, item_embeddings=plain.item_embeddings + 300
    )
    torch.testing.assert_close(moved.score(plain.row_ids), plain.score(plain.row_ids), rtol=1e-3, atol=1e-3)


def test_chunks_do_not_matter(monkeypatch):
    knowledge, items = with_vectors("l2"), np.array([[0, 1], [2, 3], [4, 5]])
    whole = knowledge.score(knowledge.row_ids, items)
    monkeypatch.setattr("recdistill.knowledge.lists.CHUNK_ELEMENTS", 1)
    assert torch.equal(knowledge.score(knowledge.row_ids, items), whole)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_list_scores(data):
    lists = [data.draw(st.lists(st.integers(0, 8), unique=True, max_size=5)) for _ in range(3)]
    distances = [
        sorted(data.draw(st.lists(st.floats(0, 9), min_size=len(x), max_size=len(x)))) for x in lists
    ]
    temperature, gap = data.draw(st.sampled_from([0.5, 1.0, 3.0])), data.draw(st.sampled_from([0.0, 1.0]))
    with_distances = data.draw(st.booleans())
    knowledge = Knowledge(
        np.array([1, 2, 3]),
        9,
        ranking=np.array([x + [-1] * (5 - len(x)) for x in lists]),
        ranking_distance=np.array([x + [np.nan] * (5 - len(x)) for x in distances])
        if with_distances
        else None,
    ).check()
    every = knowledge.score(np.array([1, 2, 3]), temperature=temperature, gap=gap)
    items = np.tile(np.arange(9), (3, 1))
    some = knowledge.score(np.array([1, 2, 3]), items, temperature=temperature, gap=gap)
    expected = [
        [from_list(x, d if with_distances else None, item, temperature, gap) for item in range(9)]
        for x, d in zip(lists, distances, strict=True)
    ]
    np.testing.assert_allclose(every, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(some, expected, rtol=1e-5, atol=1e-5)


def test_pads_and_uncovered_rows():
    scores = with_vectors("dot").score(np.array([4, 5]), np.array([[1, -1], [1, -1]]))
    assert torch.isfinite(scores[0, 0])
    assert scores[0, 1] == -torch.inf
    assert scores[1].isnan().all()


def test_the_metric_of_the_embeddings_may_differ_from_that_of_the_distances():
    knowledge = with_vectors("negative_log_probability")
    with pytest.raises(KnowledgeError, match=r"'negative_log_probability'.*squared_l2, l2, cosine, dot"):
        knowledge.score(np.array([4]))
    named = dataclasses.replace(knowledge, manifest={**knowledge.manifest, "embedding_metric": "dot"})
    torch.testing.assert_close(named.score(np.array([4])), with_vectors("dot").score(np.array([4])))


def test_nothing_to_score_with():
    with pytest.raises(KnowledgeError, match=r"cannot score items.*recdistill knowledge show"):
        Knowledge(np.array([1]), 9, target_distance=np.array([1.0])).score(np.array([1]))
