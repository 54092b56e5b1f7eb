"""A last training on more rows: what it learns from, what it keeps of the run before, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data import Catalogue, SequenceDataset
from recdistill.data.sequences import SPLIT_NAMES
from recdistill.errors import ConfigError, DataError
from recdistill.export import PRIOR, REPEATS, Recommender, export_recommender
from recdistill.export.as_teacher import knowledge_of
from recdistill.item_encoders import Collaborative
from recdistill.losses import CE
from recdistill.students import SASRec, SequenceModel
from recdistill.train import BatchLoader, TrainOptions, distill
from recdistill.train.cold_items import STRETCH
from recdistill.types import LEARNED
from shop import ITEMS, ring_dataset

OPTIONS = {"embedding_size": 8, "variant": "modern", "max_length": 12}
NEW = 3


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    """The ring; one new item is first a validation target, two are test targets alone."""
    plain = ring_dataset(users=50, noise=0.0)
    events = plain.events.copy()
    events[plain.row_events[plain.rows("valid")][::4]] = ITEMS
    events[plain.row_events[plain.rows("test")][::4]] = ITEMS + 1
    events[plain.row_events[plain.rows("test")][1::4]] = ITEMS + 2
    frame = pl.DataFrame(
        {"item_id": [f"i{k:02d}" for k in range(ITEMS + NEW)], "title": ["?"] * (ITEMS + NEW)}
    )
    return replace(plain, events=events, catalogue=Catalogue(frame))


def train(dataset: SequenceDataset, out: Path, *, repeats: Any = "keep", **more: Any) -> Recommender:
    torch.manual_seed(0)
    text = torch.randn(ITEMS + NEW, 6, generator=torch.Generator().manual_seed(1))
    items = Collaborative(dataset.item_count, 8, text, cold=dataset.cold_items)
    return distill(
        dataset,
        SequenceModel(SASRec(**OPTIONS), items, items, bias=False),
        CE(),
        out=out,
        spec={"student": "sasrec", "options": OPTIONS},
        options=TrainOptions(epochs=3, learning_rate=0.01, repeats=repeats),
        supervision="all",
        length=12,
        batch_size=16,
        **more,
    )


def test_rows_of_the_view_are_those_of_both_splits(dataset: SequenceDataset) -> None:
    view = dataset.learning_from("valid")
    both = sorted([*dataset.rows("train"), *dataset.rows("valid")])
    assert view.rows("train").tolist() == both
    assert not len(view.rows("valid"))
    assert view.rows("test").tolist() == dataset.rows("test").tolist()
    assert view.fingerprint == dataset.fingerprint
    assert view.popularity.sum() == len(both)
    assert np.flatnonzero(dataset.cold_items).tolist() == [ITEMS, ITEMS + 1, ITEMS + 2]
    assert np.flatnonzero(view.cold_items).tolist() == [ITEMS + 1, ITEMS + 2]
    assert not len(dataset.learning_from("valid", "test").rows("test"))


@pytest.mark.parametrize("supervision", ["last", "all"])
def test_every_row_of_both_splits_is_learned_from_once(dataset: SequenceDataset, supervision: Any) -> None:
    view = dataset.learning_from("valid")
    loader = BatchLoader(view, supervision, 12, 16)
    seen = np.concatenate([batch.row_ids.numpy() for batch in loader.epoch(0)])
    assert sorted(seen) == sorted(view.row_ids[view.rows("train")])


def test_it_equals_a_training_on_a_dataset_cut_that_way(dataset: SequenceDataset, tmp_path: Path) -> None:
    """The view against rows that are written as training rows, with the last epoch taken by hand."""
    ours = train(dataset.learning_from("valid"), tmp_path / "ours", cold_stretch=1.0)
    codes = dataset.row_splits.copy()
    codes[codes == SPLIT_NAMES.index("valid")] = SPLIT_NAMES.index("train")
    train(replace(dataset, row_splits=codes), tmp_path / "theirs", cold_stretch=1.0)
    theirs = Recommender.load(tmp_path / "theirs")
    for name, value in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], value), name
    assert theirs.dataset_fingerprint != ours.dataset_fingerprint == dataset.fingerprint


def test_a_prior_is_counted_anew(dataset: SequenceDataset, tmp_path: Path) -> None:
    view = dataset.learning_from("valid")
    made = train(view, tmp_path / "r", cold_stretch=1.0, prior=(0.3, 0.0))
    bare = train(view, tmp_path / "bare", cold_stretch=1.0)
    sold = np.bincount(view.targets(view.rows("train")), minlength=view.item_count)
    np.testing.assert_allclose(made.model.item_bias.detach(), 0.3 * np.log(1 + sold), rtol=1e-5)
    assert bare.model.item_bias is None
    assert made.spec[PRIOR] == [0.3, 0.0]
    assert PRIOR not in bare.spec


def test_the_last_epoch_is_kept_and_nothing_is_validated(dataset: SequenceDataset, tmp_path: Path) -> None:
    made = train(dataset.learning_from("valid"), tmp_path / "r", repeats="drop", cold_stretch=2.0)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["best"] for line in lines] == [False, False, True]
    assert not any("valid" in line for line in lines)
    assert made.spec[REPEATS] is False
    assert made.spec[LEARNED] == ["valid"]
    plain = train(dataset.learning_from("valid"), tmp_path / "plain", cold_stretch=1.0)
    cold = torch.from_numpy(dataset.learning_from("valid").cold_items)
    ours, theirs = (one.model.item_encoder.table() for one in (made, plain))
    assert torch.equal(ours[cold], 2 * theirs[cold])
    assert torch.equal(ours[~cold], theirs[~cold])
    assert (made.spec[STRETCH], plain.spec[STRETCH]) == (2.0, 1.0)
    again = train(dataset.learning_from("valid"), tmp_path / "r", repeats="drop", cold_stretch=2.0)
    assert torch.equal(
        again.model.item_encoder.table(), ours
    )  # a finished refit is not stretched a second time


def test_rows_that_were_learned_from_are_not_asked(dataset: SequenceDataset, tmp_path: Path) -> None:
    made = train(dataset.learning_from("valid"), tmp_path / "r", cold_stretch=1.0)
    assert len(made.evaluate(dataset, "test", filter_seen=True)) == len(dataset.rows("test"))
    with pytest.raises(DataError, match=r"trained on the valid rows as well.*--split test"):
        made.evaluate(dataset, "valid", filter_seen=True)
    with pytest.raises(ConfigError, match="learned from the valid rows"):
        knowledge_of([made], dataset, dataset.rows("test"))
    everything = train(dataset.learning_from("valid", "test"), tmp_path / "all", cold_stretch=1.0)
    with pytest.raises(DataError, match="none, all rows were learned from"):
        everything.evaluate(dataset, "test", filter_seen=True)


def test_an_export_remembers_it(dataset: SequenceDataset, tmp_path: Path) -> None:
    view = dataset.learning_from("valid")
    made = train(view, tmp_path / "r", cold_stretch=1.0)
    report = export_recommender(
        Recommender.load(tmp_path / "r"), tmp_path / "rec", table="int8", dataset=dataset
    )
    assert [loss.split for loss in report.losses] == ["test"]
    again = Recommender.load(tmp_path / "rec")
    assert again.learned == made.learned == ("valid",)
    assert again.popularity is not None
    assert again.popularity.tolist() == view.popularity.tolist()
    with pytest.raises(DataError, match="--split test"):
        again.evaluate(dataset, "valid", filter_seen=True)
