from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, FingerprintError
from recdistill.export import Recommender
from recdistill.export.as_teacher import knowledge_of
from recdistill.item_encoders import Ids
from recdistill.losses import LOSSES
from recdistill.strategies import STRATEGIES
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import BatchLoader, Objective
from recdistill.train.distill import describe_task
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def data() -> SequenceDataset:
    return ring_dataset()


def trained(data: SequenceDataset, name: str, length: int, *, tied: bool, seed: int) -> Recommender:
    torch.manual_seed(seed)
    options = {"embedding_size": 8, "variant": "modern", "max_length": length}
    student = STUDENTS[name](**options)
    table = Ids(ITEMS, 8, std=1.0)
    output = table if tied else Ids(ITEMS, student.hidden_size, std=1.0)
    model = SequenceModel(student, table, output, bias=not tied)
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias)
    return Recommender.from_model(model, data, {"student": name, "options": options}, length)


def test_the_knowledge_is_the_weighted_sum_of_the_students_scores(data):
    first = trained(data, "sasrec", 8, tied=True, seed=0)
    second = trained(data, "gru4rec", 5, tied=False, seed=1)  # another length, and biases
    rows = data.rows("train")[::3]
    made = knowledge_of([first, second], data, rows, weights=[1.0, 0.4], batch_size=7, top_k=6)
    scores = [one.scorer()(data.histories(rows, one.length)) for one in (first, second)]
    expected = scores[0] + 0.4 * scores[1]
    torch.testing.assert_close(made.score(data.row_ids[rows]), expected, atol=1e-4, rtol=1e-4)
    log_p = expected.log_softmax(1)
    best = log_p.topk(6, dim=1)
    assert np.array_equal(made.ranking, best.indices.numpy())
    np.testing.assert_allclose(made.ranking_distance, -best.values.numpy(), atol=1e-4)
    targets = data.targets(rows)
    np.testing.assert_allclose(made.target_distance, -log_p[np.arange(len(rows)), targets], atol=1e-4)
    assert made.manifest["distance"] == "negative_log_probability"
    assert made.query_embeddings.shape == (len(rows), 8 + 8 + 1)


def test_one_student_is_its_own_teacher_and_agrees_with_itself(data):
    """What it teaches by its vectors is what it says: the soft labels' divergence from itself is 0."""
    one = trained(data, "sasrec", 8, tied=True, seed=0)
    rows = data.rows("train", prefixes=True)
    known = knowledge_of([one], data, rows)
    ranks = one.evaluate(data, "valid", filter_seen=False).ranks
    asked = knowledge_of([one], data, data.rows("valid"))
    assert asked.target_rank.tolist() == ranks.tolist()
    soft = STRATEGIES["soft_labels"](teacher="dot", temperature=1.0)
    task = describe_task(data, one.model, known)
    objective = Objective(one.model.eval(), LOSSES["ce"](), [(1.0, soft)], task)
    batch = next(BatchLoader(data, "last", 8, 32, knowledge=known).epoch(0))
    assert objective(batch)[1][1].item() == pytest.approx(0, abs=1e-5)


def test_refuses(data):
    one = trained(data, "sasrec", 8, tied=True, seed=0)
    rows = data.rows("train")[:3]
    for weights in ([1.0, 2.0], [0.0], []):
        with pytest.raises(ConfigError, match="one weight"):
            knowledge_of([one], data, rows, weights=weights)
    with pytest.raises(ConfigError, match="0 students"):
        knowledge_of([], data, rows)
    other = ring_dataset(seed=9)
    with pytest.raises(FingerprintError):
        knowledge_of([one], other, other.rows("train"))
