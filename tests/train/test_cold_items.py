"""Validation picks how long the vectors of cold items are, once, and only where nobody chose it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data import Catalogue, SequenceDataset
from recdistill.export import Recommender
from recdistill.item_encoders import Collaborative
from recdistill.losses import CE
from recdistill.students import SASRec, SequenceModel
from recdistill.train import TrainOptions, distill
from recdistill.train.cold_items import FACTORS, STRETCH, pick_cold_length, stretched
from recdistill.train.distill import validation
from recdistill.train.records import kept_metrics, settled_metric
from shop import ITEMS, ring_dataset

OPTIONS = {"embedding_size": 8, "variant": "modern", "max_length": 12}
NEW = 4


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    """The ring, in which every third validation target is an item that training never saw."""
    plain = ring_dataset(users=60, noise=0.0)
    events = plain.events.copy()
    valid = plain.row_events[plain.rows("valid")]
    events[valid[::3]] = ITEMS + np.arange(len(valid[::3])) % NEW
    frame = pl.DataFrame(
        {"item_id": [f"i{k:02d}" for k in range(ITEMS + NEW)], "title": ["?"] * (ITEMS + NEW)}
    )
    return replace(plain, events=events, catalogue=Catalogue(frame))


def text() -> torch.Tensor:
    return torch.randn(ITEMS + NEW, 6, generator=torch.Generator().manual_seed(0))


def train(dataset: SequenceDataset, out, **options) -> Recommender:
    torch.manual_seed(0)
    items = Collaborative(dataset.item_count, 8, text(), cold=dataset.cold_items, **options)
    return distill(
        dataset,
        SequenceModel(SASRec(**OPTIONS), items, items, bias=False),
        CE(),
        out=out,
        spec={"student": "sasrec", "options": OPTIONS},
        supervision="all",
        length=12,
        options=TrainOptions(epochs=2, learning_rate=0.01),
    )


def test_the_ring_has_cold_targets(dataset: SequenceDataset) -> None:
    cold = dataset.cold_items
    assert cold.sum() == NEW
    assert 0.2 < cold[dataset.targets(dataset.rows("valid"))].mean() < 0.5


def test_only_cold_vectors_are_stretched(dataset: SequenceDataset, tmp_path) -> None:
    plain = train(dataset, tmp_path / "r", cold_length=1.0)
    longer = stretched(plain, 2.0)
    before, after = plain.model.item_encoder.table(), longer.model.item_encoder.table()
    cold = torch.from_numpy(dataset.cold_items)
    assert torch.equal(after[~cold], before[~cold])
    assert torch.equal(after[cold], 2 * before[cold])
    assert longer.spec[STRETCH] == 2.0


def test_the_best_factor_on_validation_is_picked_and_kept(dataset: SequenceDataset, tmp_path) -> None:
    chosen = train(dataset, tmp_path / "r")
    fixed = train(dataset, tmp_path / "fixed", cold_length=1.0)
    assert STRETCH not in fixed.spec
    assert not (tmp_path / "fixed" / "cold_items.json").exists()
    cold = dataset.cold_items[dataset.targets(dataset.rows("valid"))]
    gains = {
        factor: stretched(fixed, factor).evaluate(dataset, "valid", filter_seen=False).per_row("ndcg@20")
        for factor in FACTORS
    }
    best = max(FACTORS, key=lambda factor: gains[factor].mean())
    near = []
    for factor in FACTORS:
        lost = gains[best] - gains[factor]
        if lost.mean() <= np.sqrt(((lost - lost.mean()) ** 2).mean() / len(lost)):
            near.append(factor)
    assert chosen.spec[STRETCH] == max(near, key=lambda factor: gains[factor][cold].mean())
    assert chosen.spec[STRETCH] != 1.0
    told = json.loads((tmp_path / "r" / "cold_items.json").read_text())
    assert told["chosen"] == chosen.spec[STRETCH]
    assert [one["all"] for one in told["tried"]] == pytest.approx([part.mean() for part in gains.values()])
    assert [one["cold"] for one in told["tried"]] == pytest.approx(
        [part[cold].mean() for part in gains.values()]
    )
    kept = chosen.evaluate(dataset, "valid", filter_seen=False).metrics((20,))["ndcg@20"]
    assert settled_metric(tmp_path / "r") == ("ndcg@20", pytest.approx(kept))
    assert kept_metrics(tmp_path / "r") == {"ndcg@20": pytest.approx(kept)}
    assert settled_metric(tmp_path / "fixed") is None
    epochs = fixed.evaluate(dataset, "valid", filter_seen=False).metrics((20,))
    assert kept_metrics(tmp_path / "fixed")["ndcg@20"] == pytest.approx(epochs["ndcg@20"])
    before = (tmp_path / "r" / "best" / "model.safetensors").read_bytes()
    train(dataset, tmp_path / "r")  # a finished run is not stretched again
    assert (tmp_path / "r" / "best" / "model.safetensors").read_bytes() == before


def test_without_cold_items_the_length_stays(dataset: SequenceDataset, tmp_path) -> None:
    plain = train(dataset, tmp_path / "r", cold_length=1.0)
    none = replace(plain, cold=np.zeros(0, dtype=np.int64))
    chosen, tried = pick_cold_length(none, dataset, filter_seen=True)
    assert chosen.spec[STRETCH] == 1.0
    assert len({one["all"] for one in tried}) == 1


@pytest.mark.parametrize("given", [None, 1.0])
def test_epochs_are_compared_with_short_cold_vectors_where_their_length_is_open(
    dataset: SequenceDataset, tmp_path, given: float | None
) -> None:
    torch.manual_seed(1)
    items = Collaborative(dataset.item_count, 8, text(), cold=dataset.cold_items, cold_length=given, std=1.0)
    model = SequenceModel(SASRec(**OPTIONS), items, items, bias=False)
    found = validation(model, dataset, 12, filter_seen=False)[True]
    whole = Recommender.from_model(model, dataset, {"student": "sasrec", "options": OPTIONS}, 12)
    for factor in (1.0, min(FACTORS)):
        metrics = stretched(whole, factor).evaluate(dataset, "valid", filter_seen=False).metrics((1, 10, 20))
        same = metrics["mrr@20"] == pytest.approx(found["mrr@20"])
        assert same == (factor == (1.0 if given else min(FACTORS)))
