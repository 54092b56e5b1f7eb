from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.errors import ConfigError, DataError, RunError
from recdistill.evaluate import Evaluation, compare_evaluations, slice_masks, target_ranks
from recdistill.runs import write_manifest
from shop import ITEMS, ring_dataset


def evaluation(ranks=(0, 4, 30, 7), **changes):
    ranks = np.array(ranks)
    return replace(Evaluation("m", "test", np.arange(len(ranks)) * 2, ranks, 50, False), **changes)


def test_metrics_of_a_scorer():
    dataset = ring_dataset()
    rows = dataset.rows("test")

    def next_on_the_ring(history):
        last = history[np.arange(len(history)), (history >= 0).sum(1) - 1]
        return -((np.arange(ITEMS) - last[:, None] - 1) % ITEMS).astype(np.float32)

    ranks = target_ranks(next_on_the_ring, dataset, rows, length=8)
    found = Evaluation("ring", "test", dataset.row_ids[rows], ranks.kept, ITEMS, False)
    assert found.metrics()["hr@1"] > 0.7
    assert found.metrics((1,))["hr@1"] == pytest.approx(found.per_row("hr@1").mean())
    sliced = found.slices(slice_masks(dataset, rows)["hop distance"])
    assert sum(one["n"] for one in sliced.values()) == len(found)
    weighted = sum(one["n"] * one["ndcg@10"] for one in sliced.values()) / len(found)
    assert weighted == pytest.approx(found.metrics()["ndcg@10"])


def test_an_empty_slice_has_no_metrics():
    assert evaluation().slices({"none": np.zeros(4, bool)}) == {"none": {"n": 0.0}}


def test_wrong_masks_are_refused():
    with pytest.raises(DataError, match="mask of slice 'x'"):
        evaluation().slices({"x": np.ones(3, bool)})
    with pytest.raises(DataError, match="int64"):
        evaluation().slices({"x": np.ones(4, np.int64)})


def test_protocol_is_in_words():
    assert evaluation().protocol == "test, 4 rows, 50 items, seen items kept"
    assert evaluation(filter_seen=True).protocol.endswith("seen items filtered")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "one is on valid, the other on test"),
        ({"filter_seen": True}, "seen items are filtered in one, kept in the other"),
        ({"item_count": 51}, "51 items compete in one, 50"),
        ({"row_ids": np.array([0, 2, 4, 5])}, "4 and 4 rows, of which 3 are the same"),
        ({"dataset": "b" * 64}, "two datasets"),
    ],
)
def test_different_questions_are_never_compared(change, message):
    first = evaluation(dataset="a" * 64)
    with pytest.raises(ConfigError, match=message):
        first.compare(replace(first, **change))


def test_an_unknown_dataset_is_not_another_one():
    assert evaluation(dataset="a" * 64).compare(evaluation(), permutations=10).p == 1.0


def test_compare_says_which_is_better():
    rng = np.random.default_rng(0)
    good = evaluation(rng.integers(0, 10, 200), name="good")
    bad = [evaluation(rng.integers(0, 40, 200), name="bad", seed=seed) for seed in (0, 1)]
    found = good.compare(bad)
    assert found.difference > 0
    assert found.interval[0] > 0
    assert found.p < 0.001
    assert (found.model, found.reference, found.seeds, found.n) == ("good", "bad", (1, 2), 200)
    assert found.value == pytest.approx(good.metrics()["ndcg@20"])


def test_compare_on_a_slice():
    first, second = evaluation((0, 0, 30, 30)), evaluation((30, 30, 0, 0))
    mask = np.array([True, True, False, False])
    found = compare_evaluations([first], [second], "hr@10", mask=mask, permutations=50)
    assert (found.difference, found.n) == (1.0, 2)


def test_save_and_load(tmp_path):
    first = evaluation(name="sasrec", seed=3, dataset="abc", filter_seen=True)
    first.save(tmp_path / "e")
    assert sorted(p.name for p in (tmp_path / "e").iterdir()) == [
        "manifest.json",
        "metrics.json",
        "ranks.parquet",
    ]
    second = Evaluation.load(tmp_path / "e")
    np.testing.assert_array_equal(second.ranks, first.ranks)
    np.testing.assert_array_equal(second.row_ids, first.row_ids)
    for fact in ("name", "split", "item_count", "filter_seen", "seed", "dataset"):
        assert getattr(second, fact) == getattr(first, fact)
    with pytest.raises(RunError, match="already exists"):
        first.save(tmp_path / "e")
    evaluation().save(tmp_path / "e", overwrite=True)
    assert Evaluation.load(tmp_path / "e").name == "m"


def test_incomplete_folders_are_named(tmp_path):
    with pytest.raises(RunError, match="no evaluation folder"):
        Evaluation.load(tmp_path)
    evaluation().save(tmp_path / "e")
    (tmp_path / "e" / "ranks.parquet").unlink()
    with pytest.raises(RunError, match="no complete evaluation folder"):
        Evaluation.load(tmp_path / "e")
    evaluation().save(tmp_path / "f")
    write_manifest(tmp_path / "f", "evaluation", {"name": "x", "colour": "red"})
    with pytest.raises(RunError, match="no complete evaluation folder"):
        Evaluation.load(tmp_path / "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_ids": np.array([0, 2, 2, 3])}, "ascending and unique"),
        ({"row_ids": np.array([3, 2, 1, 0])}, "ascending and unique"),
        ({"row_ids": np.array([0, 1])}, "one rank for each"),
        ({"ranks": np.array([0, 1, 2, 50])}, "must lie in 0..49"),
        ({"ranks": np.array([0, 1, 2, -1])}, "must lie in 0..49"),
    ],
)
def test_wrong_ranks_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        evaluation(**change)


def test_empty_and_unknown_splits_are_refused():
    with pytest.raises(DataError, match="at least one row"):
        evaluation(())
    with pytest.raises(ConfigError, match="unknown split"):
        evaluation(split="dev")
