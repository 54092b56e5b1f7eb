"""Learning from a teacher's walks beside the dataset's rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recdistill.errors import KnowledgeError, RunError
from recdistill.export import Recommender
from recdistill.item_encoders import Ids
from recdistill.losses import CE
from recdistill.strategies import RRD
from recdistill.students import SASRec, SequenceModel
from recdistill.teachers import GraphTeacher, rows_to_teach, take_walks
from recdistill.train import BatchLoader, TrainOptions, distill
from shop import ITEMS, ring_dataset

OPTIONS = {"embedding_size": 8, "variant": "modern", "max_length": 12}


@pytest.fixture(scope="module")
def data():
    return ring_dataset(users=40)


@pytest.fixture(scope="module")
def teacher(data):
    """A graph teacher's knowledge and its walks."""
    graph = GraphTeacher(temperature=0.1)
    knowledge = graph.teach(data, rows_to_teach(data, ["train", "valid"]), top_k=12)
    walks = take_walks(graph.scorer(data), data, count=50, steps=3, temperature=0.1, top_k=12)
    return knowledge, walks


def train(data, out: Path, knowledge, walks, *, epochs: int = 2, strategies=True, **more) -> Recommender:
    torch.manual_seed(0)
    items = Ids(ITEMS, 8)
    return distill(
        data,
        SequenceModel(SASRec(**OPTIONS), items, items, bias=False),
        CE(),
        [(0.1, RRD(k=5, samples=4))] if strategies else [],
        knowledge,
        walks=walks,
        out=out,
        spec={"student": "sasrec", "options": OPTIONS},
        options=TrainOptions(epochs=epochs, learning_rate=0.01),
        length=12,
        batch_size=16,
        **{"supervision": "all"} | more,
    )


def weights(student: Recommender) -> list[np.ndarray]:
    return [value.numpy() for value in student.model.state_dict().values()]


@pytest.mark.parametrize("supervision", ["all", "last"])
def test_an_epoch_holds_every_row_and_every_step_with_its_answer(data, teacher, supervision):
    knowledge, walks = teacher
    joined, known, ids = walks.join(data, knowledge)
    loader = BatchLoader(joined, supervision, 12, 16, knowledge=known)
    met = {}
    for batch in loader.epoch(0):
        said = batch.knowledge.ranking
        for row, target, listed in zip(batch.row_ids.tolist(), batch.targets.tolist(), said, strict=True):
            assert row not in met
            met[row] = (target, listed.tolist())
    assert set(met) == set(data.row_ids[data.rows("train")]) | set(ids)
    for step, row in enumerate(ids):
        assert met[row] == (walks.items[:, 1:].ravel()[step], walks.answers.ranking[step].tolist())


@pytest.mark.parametrize("strategies", [True, False])
def test_they_change_what_is_learned_and_the_dataset_stays(data, teacher, tmp_path, strategies):
    knowledge, walks = teacher
    more = {"strategies": strategies}
    with_walks = train(data, tmp_path / "with", knowledge, walks, **more)
    again = train(data, tmp_path / "again", knowledge, walks, **more)
    without = train(data, tmp_path / "without", knowledge, None, **more)
    pairs = list(zip(weights(with_walks), weights(again), weights(without), strict=True))
    assert all((one == two).all() for one, two, _ in pairs)
    assert any((one != three).any() for one, _, three in pairs)
    assert with_walks.dataset_fingerprint == data.fingerprint
    assert with_walks.evaluate(data, "test", filter_seen=True).protocol


def test_rows_that_are_left_out_do_not_leave_the_walks_out(data, teacher, tmp_path):
    """`skip` drops rows without knowledge, and `only` picks rows of the dataset: the walks stay."""
    knowledge, walks = teacher
    some = data.row_ids[data.rows("train")][:20]
    student = train(data, tmp_path / "a", knowledge.restricted(some), walks, coverage="skip", only=some[:10])
    few = train(data, tmp_path / "b", knowledge.restricted(some), None, coverage="skip", only=some[:10])
    assert any((a != b).any() for a, b in zip(weights(student), weights(few), strict=True))


def test_another_make_is_refused_where_a_run_goes_on(data, teacher, tmp_path):
    knowledge, walks = teacher
    train(data, tmp_path / "r", knowledge, walks)
    with pytest.raises(RunError, match="other settings"):
        train(data, tmp_path / "r", knowledge, None)
    with pytest.raises(RunError, match="other settings"):
        train(data, tmp_path / "r", knowledge, replace(walks, manifest={**walks.manifest, "seed": 5}))


def test_walks_that_lack_what_a_strategy_reads_are_refused(data, teacher, tmp_path):
    knowledge, walks = teacher
    poor = replace(walks, answers=replace(walks.answers, ranking=None, ranking_distance=None))
    with pytest.raises(KnowledgeError, match="answers along its walks"):
        train(data, tmp_path / "r", knowledge, poor)
