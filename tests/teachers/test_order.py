import math

import numpy as np
import pytest
import torch

from recdistill.teachers import EmbeddingOptions, EmbeddingTeacher, GraphOptions, GraphTeacher
from recdistill.teachers.order import ORDER, order_record, order_rows, order_sensitivity, shuffled_histories
from recdistill.types import PAD


def test_shuffled_histories_hold_the_same_items():
    history = np.array([[4, 5, 6, 7, 8], [1, 2, 2, PAD, PAD], [9, PAD, PAD, PAD, PAD]])
    seen = set()
    for seed in range(60):
        found = shuffled_histories(history, seed)
        assert (np.sort(found, axis=1) == np.sort(history, axis=1)).all()
        assert ((found == PAD) == (history == PAD)).all()
        seen.add(tuple(found[0].tolist()))
    assert len(seen) > 30
    assert (shuffled_histories(history, 3) == shuffled_histories(history, 3)).all()


def test_the_record_compares_metrics():
    ranks, shuffled = np.array([0, 2, 30, 19]), np.array([1, 40, 3, 19])
    found = order_record(ranks, shuffled, seed=7)
    gain = lambda r: 1 / math.log2(r + 2) if r < 20 else 0.0  # noqa: E731
    before, after = [sum(map(gain, r)) / 4 for r in (ranks.tolist(), shuffled.tolist())]
    gaps = [gain(a) - gain(b) for a, b in zip(ranks.tolist(), shuffled.tolist(), strict=True)]
    spread = math.sqrt(sum((g - sum(gaps) / 4) ** 2 for g in gaps) / 3)
    assert found["drop"] == pytest.approx((before - after) / before)
    assert found["drop_error"] == pytest.approx(spread / 2 / before)
    assert (found["hr@20"], found["shuffled_hr@20"], found["rows"], found["seed"]) == (0.75, 0.75, 4, 7)
    assert order_record(np.array([90]), np.array([3]))["drop"] is None


def test_rows_have_an_order(make_dataset):
    dataset = make_dataset([[0, 1, 2], [0, 1, 2, 3], [3, 2, 1, 0, 2]])
    rows = order_rows(dataset)
    assert dataset.history_lengths(rows).tolist() == [2, 3]  # the first one's validation history is one item
    assert len(order_rows(dataset, 1)) == 1
    assert order_sensitivity(lambda h: torch.zeros(len(h), 4), make_dataset([[0, 1, 2]])) is None


def test_a_reader_of_the_last_item_loses_and_a_bag_does_not(walks):
    """On a ring the last item says what comes next; a bag of the items is the same in any order."""

    def last(history):
        at = (history != PAD).sum(1) - 1
        here = history[np.arange(len(history)), at]
        return -torch.from_numpy((np.arange(24) - here[:, None]) % 24 * 1.0)

    def bag(history):
        counts = torch.zeros(len(history), 25)
        items = torch.from_numpy(np.where(history == PAD, 24, history))
        return counts.scatter_add_(1, items, torch.ones(items.shape))[:, :24] + torch.arange(24) * 1e-3

    found = order_sensitivity(last, walks, length=10, batch_size=7)
    assert found["drop"] > 0.1
    assert found["ndcg@20"] > found["shuffled_ndcg@20"]
    assert order_sensitivity(bag, walks, length=10)["drop"] == 0


def test_teachers_leave_a_record(walks):
    rows = walks.rows("valid")
    graph = GraphTeacher(options=GraphOptions(), temperature=0.1).teach(walks, rows, top_k=5)
    assert graph.manifest[ORDER]["drop"] > 0.05  # the newest item weighs most
    text = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
    quick = EmbeddingOptions(last_items=3, epochs=2, batch_size=32, negatives=0, folds=2, learning_rate=0.02)
    known = EmbeddingTeacher(text, quick).teach(walks, rows, top_k=5)
    record, asked = known.manifest[ORDER], order_rows(walks)
    ranks = known.target_rank[np.searchsorted(known.row_ids, walks.row_ids[asked])]
    assert record["hr@20"] == pytest.approx(
        (ranks < 20).mean(), abs=0.03
    )  # stored answers are in half precision
