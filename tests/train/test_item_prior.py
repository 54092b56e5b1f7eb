"""Validation picks how much popularity, and being bought of late, count; the sum is a bias of each item."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from recdistill.data import SequenceDataset
from recdistill.export import PRIOR, Recommender
from recdistill.item_encoders import Ids
from recdistill.losses import CE
from recdistill.students import SASRec, SequenceModel
from recdistill.train import TrainOptions, distill, item_prior
from recdistill.train.item_prior import LATELY, OFTEN, pick_prior, with_prior
from recdistill.train.records import kept_metrics, settled_metric
from shop import ring_dataset

OPTIONS = {"embedding_size": 8, "variant": "modern", "max_length": 12}
SPEC = {"student": "sasrec", "options": OPTIONS}


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    """The ring, whose newest rows go to a few items, as all of the held-out ones do."""
    plain = ring_dataset(users=120, noise=0.0)
    events, when = plain.events.copy(), np.arange(len(plain.events), dtype=np.int64)
    draws = np.random.default_rng(0)
    held_out = np.concatenate([plain.row_events[plain.rows(split)] for split in ("valid", "test")])
    newest = np.sort(plain.row_events[plain.rows("train")])[-12:]
    for some in (held_out, newest):
        events[some] = draws.integers(0, 3, len(some))
    return replace(plain, events=events, timestamps=when)


@pytest.fixture(scope="module")
def plain(dataset: SequenceDataset, tmp_path_factory) -> Recommender:
    return train(dataset, tmp_path_factory.mktemp("plain") / "r")


def train(dataset: SequenceDataset, folder, **options) -> Recommender:
    torch.manual_seed(0)
    items = Ids(dataset.item_count, 8)
    model = SequenceModel(SASRec(**OPTIONS), items, items, bias=False)
    return distill(
        dataset,
        model,
        CE(),
        out=folder,
        spec=SPEC,
        options=TrainOptions(epochs=2, learning_rate=0.01),
        supervision="all",
        length=12,
        **options,
    )


def counts(dataset: SequenceDataset) -> tuple[np.ndarray, np.ndarray]:
    often, lately = np.zeros(dataset.item_count), np.zeros(dataset.item_count)
    rows = dataset.rows("train")
    border = np.quantile([dataset.timestamps[dataset.row_events[row]] for row in rows], 0.98)
    for row in rows:
        event = dataset.row_events[row]
        often[dataset.events[event]] += 1
        lately[dataset.events[event]] += dataset.timestamps[event] >= border
    return np.log(1 + often), np.log(1 + lately)


def test_the_prior_is_added_to_the_scores(dataset: SequenceDataset, plain: Recommender, tmp_path) -> None:
    often, lately = counts(dataset)
    assert len(set(lately)) > 2
    history = dataset.histories(dataset.rows("test")[:5], 12)
    with_prior(plain, dataset, 0.3, 0.6).save(tmp_path / "saved")
    made = Recommender.load(tmp_path / "saved")
    assert made.spec[PRIOR] == [0.3, 0.6]
    np.testing.assert_allclose(
        made.scorer()(history), plain.scorer()(history).numpy() + 0.3 * often + 0.6 * lately, atol=1e-5
    )


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_the_best_prior_on_validation_is_picked(dataset, plain, filter_seen: bool, repeats: bool) -> None:
    student = plain if repeats else replace(plain, spec={**plain.spec, "repeats": False})
    chosen, tried = pick_prior(student, dataset, filter_seen=filter_seen)
    naive = [
        with_prior(student, dataset, often, lately).evaluate(dataset, "valid", filter_seen=filter_seen)
        for often, lately in product(OFTEN, LATELY)
    ]
    gains = [one.metrics((20,))["ndcg@20"] for one in naive]
    assert [(one["often"], one["lately"]) for one in tried] == list(product(OFTEN, LATELY))
    assert [one["value"] for one in tried] == pytest.approx(gains)
    assert chosen.spec[PRIOR] == list(list(product(OFTEN, LATELY))[int(np.argmax(gains))])
    assert max(gains) > 1.2 * gains[0]


def test_without_timestamps_nothing_is_late(dataset, plain) -> None:
    _, tried = pick_prior(plain, replace(dataset, timestamps=None), filter_seen=True)
    assert {one["lately"] for one in tried} == {0.0}
    assert len(tried) == len(OFTEN)


def test_a_gain_within_one_standard_error_is_left(dataset, plain, monkeypatch) -> None:
    monkeypatch.setattr(item_prior, "OFTEN", (0.0, 0.3))
    monkeypatch.setattr(item_prior, "LATELY", (0.0, 0.4))
    events = dataset.events.copy()
    valid = dataset.row_events[dataset.rows("valid")]
    events[valid[::2]] = (np.arange(len(valid[::2])) % dataset.item_count).astype(
        events.dtype
    )  # the prior errs here
    dataset = replace(dataset, events=events)
    plain = replace(plain, dataset_fingerprint=dataset.fingerprint)
    grid = list(product((0.0, 0.3), (0.0, 0.4)))
    ids = dataset.row_ids[dataset.rows("valid")]
    per_row = np.array(
        [
            with_prior(plain, dataset, *one).evaluate(dataset, "valid", filter_seen=True).per_row("ndcg@20")
            for one in grid
        ]
    )
    draws, outcomes = np.random.default_rng(3), set()
    for _ in range(20):
        some = np.sort(draws.choice(len(ids), 8, replace=False))
        aside = np.isin(dataset.row_ids, ids[~np.isin(np.arange(len(ids)), some)])
        few = replace(dataset, row_splits=np.where(aside, 2, dataset.row_splits).astype(np.int8))
        chosen, _ = pick_prior(plain, few, filter_seen=True)
        means = per_row[:, some].mean(axis=1)
        best = int(np.argmax(means))
        difference = per_row[best, some] - per_row[0, some]
        error = np.sqrt(((difference - difference.mean()) ** 2).mean() / 8)
        taken = bool(difference.mean() > error)
        assert chosen.spec[PRIOR] == (list(grid[best]) if taken else [0.0, 0.0])
        outcomes.add((taken, bool(difference.mean() > 0)))
    assert {(True, True), (False, True)} <= outcomes


def test_a_run_picks_once_and_tells(dataset: SequenceDataset, plain: Recommender, tmp_path) -> None:
    made = train(dataset, tmp_path / "r", prior="pick")
    expected, tried = pick_prior(plain, dataset, filter_seen=False)
    assert made.spec[PRIOR] == expected.spec[PRIOR] != [0.0, 0.0]
    told = json.loads((tmp_path / "r" / "item_prior.json").read_text())
    assert told["tried"] == tried
    value = made.evaluate(dataset, "valid", filter_seen=False).metrics((20,))["ndcg@20"]
    assert settled_metric(tmp_path / "r") == ("ndcg@20", pytest.approx(value))
    assert kept_metrics(tmp_path / "r") == {"ndcg@20": pytest.approx(value)}
    before = (tmp_path / "r" / "best" / "model.safetensors").read_bytes()
    train(dataset, tmp_path / "r", prior="pick")  # a finished run gets no second one
    assert (tmp_path / "r" / "best" / "model.safetensors").read_bytes() == before
    given = train(dataset, tmp_path / "given", prior=(0.1, 0.4))
    assert given.spec[PRIOR] == [0.1, 0.4]
