"""Walks in a knowledge folder, and joined to what is learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.errors import FingerprintError, KnowledgeError
from recdistill.knowledge import Knowledge, Walks, has_walks, load_knowledge, load_walks, save_knowledge
from recdistill.knowledge.store import available_fields
from recdistill.types import PAD
from shop import ITEMS, ring_dataset

COUNT, STEPS, K = 6, 3, 4


@pytest.fixture
def data():
    return ring_dataset(users=20)


def answers(rows, k=K, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "ranking": np.stack([rng.permutation(ITEMS)[:k] for _ in range(rows)]).astype(np.int32),
        "ranking_distance": np.sort(rng.random((rows, k)), axis=1).astype(np.float32),
        "target_distance": rng.random(rows).astype(np.float32),
    }


@pytest.fixture
def walks():
    items = (np.arange(COUNT)[:, None] * 5 + np.arange(STEPS + 1)) % ITEMS
    told = Knowledge(np.arange(COUNT * STEPS), ITEMS, **answers(COUNT * STEPS))
    return Walks(items.astype(np.int32), told, {"seed": 3})


@pytest.fixture
def knowledge(data):
    rows = data.rows("train")
    vectors = np.ones((ITEMS, 2), dtype=np.float32)
    return Knowledge(data.row_ids[rows], ITEMS, **answers(len(rows), seed=1), item_embeddings=vectors)


def test_a_folder_gives_them_back_and_stays_what_it_was(data, knowledge, walks, tmp_path):
    save_knowledge(knowledge, tmp_path / "k", dataset=data, walks=walks)
    save_knowledge(knowledge, tmp_path / "plain", dataset=data)
    assert has_walks(tmp_path / "k")
    assert not has_walks(tmp_path / "plain")
    found = load_walks(tmp_path / "k", data)
    np.testing.assert_array_equal(found.items, walks.items)
    for name, array in walks.answers.fields.items():
        np.testing.assert_array_equal(getattr(found.answers, name), array)
    assert found.manifest["seed"] == 3
    assert len(load_knowledge(tmp_path / "k", data, check=True)) == len(knowledge)
    assert available_fields(tmp_path / "k") - available_fields(tmp_path / "plain") == {"walks"}
    assert (tmp_path / "k" / "knowledge.safetensors").read_bytes() == (
        tmp_path / "plain" / "knowledge.safetensors"
    ).read_bytes()


def test_joined_they_are_training_rows_with_the_teachers_answers(data, knowledge, walks):
    joined, known, ids = walks.join(data, knowledge)
    assert len(ids) == COUNT * STEPS
    assert ids.min() > data.row_ids.max()
    rows = joined.positions_of(ids)
    np.testing.assert_array_equal(joined.targets(rows), walks.items[:, 1:].ravel())
    for walk in range(COUNT):
        for step in range(STEPS):
            history = joined.histories(rows[walk * STEPS + step : walk * STEPS + step + 1], STEPS)[0]
            assert history[history >= 0].tolist() == walks.items[walk, : step + 1].tolist()
    told = known.rows_for(torch.from_numpy(ids))
    np.testing.assert_array_equal(told.ranking, walks.answers.ranking)
    np.testing.assert_array_equal(told.target_distance, walks.answers.target_distance)
    mixed = torch.from_numpy(
        np.concatenate([ids[4:6], knowledge.row_ids[3:5], [data.row_ids[data.rows("test")[0]]]])
    )
    told = known.rows_for(mixed)
    assert told.covered.tolist() == [True, True, True, True, False]
    wanted = np.concatenate([walks.answers.ranking[4:6], knowledge.ranking[3:5], np.full((1, K), PAD)])
    np.testing.assert_array_equal(told.ranking, wanted)
    assert told.target_distance[2] == knowledge.target_distance[3]
    assert told.target_distance[4].isnan()
    np.testing.assert_array_equal(joined.rows("valid"), data.rows("valid"))
    np.testing.assert_array_equal(
        joined.histories(data.rows("test"), 9), data.histories(data.rows("test"), 9)
    )
    assert len(joined.rows("train")) == len(data.rows("train")) + len(ids)


def test_a_field_that_only_one_of_them_has_is_absent(data, knowledge, walks):
    poor = replace(walks, answers=replace(walks.answers, target_distance=None))
    _, known, ids = poor.join(data, knowledge)
    assert known.rows_for(torch.from_numpy(ids)).target_distance is None
    _, known, ids = walks.join(data, replace(knowledge, ranking_distance=None))
    told = known.rows_for(torch.from_numpy(ids))
    assert told.ranking_distance is None
    assert told.ranking is not None
    assert walks.join(data, None)[1] is None


def test_lists_of_two_lengths_are_refused(data, knowledge, walks):
    with pytest.raises(KnowledgeError, match="3 items of each row and 4 of each step"):
        walks.join(data, knowledge.top(3))


def test_damage_is_said(data, knowledge, walks, tmp_path):
    with pytest.raises(KnowledgeError, match="--walks"):
        load_walks(tmp_path, data)
    with pytest.raises(KnowledgeError, match="outside 0"):
        Walks(walks.items + ITEMS, walks.answers)
    with pytest.raises(KnowledgeError, match="17 answers for walks"):
        Walks(walks.items, replace(walks.answers, row_ids=np.arange(17), **answers(17)))
    save_knowledge(knowledge, tmp_path / "k", dataset=data, walks=walks)
    with pytest.raises(FingerprintError):
        load_walks(tmp_path / "k", ring_dataset(users=21))
    file = tmp_path / "k" / "walks" / "walks.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(KnowledgeError, match="damaged"):
        load_walks(tmp_path / "k", data)


def test_answers_that_are_no_lists_are_refused_before_anything_is_written(data, knowledge, walks, tmp_path):
    falling = walks.answers.ranking_distance[:, ::-1].copy()
    wrong = replace(walks, answers=replace(walks.answers, ranking_distance=falling))
    with pytest.raises(KnowledgeError):
        save_knowledge(knowledge, tmp_path / "k", dataset=data, walks=wrong)
    assert not (tmp_path / "k").exists()
