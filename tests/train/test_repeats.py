"""Whether the student may name items of the history: validation picks, and the recommender keeps to it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recdistill.data import SequenceDataset
from recdistill.evaluate import ranks_of_new_items, target_ranks
from recdistill.export import REPEATS, Recommender, export_recommender
from recdistill.item_encoders import Ids
from recdistill.losses import LOSSES
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import TrainOptions, distill
from shop import ITEMS, ring_dataset

OPTIONS = {"embedding_size": 16, "variant": "modern", "max_length": 8, "dropout": 0.2}


def train(dataset: SequenceDataset, out: Path, repeats: str) -> Recommender:
    torch.manual_seed(0)
    table = Ids(ITEMS, 16)
    return distill(
        dataset,
        SequenceModel(STUDENTS["sasrec"](**OPTIONS), table, table, bias=False),
        LOSSES["ce"](),
        out=out,
        spec={"student": "sasrec", "options": OPTIONS},
        options=TrainOptions(epochs=2, repeats=repeats),
        supervision="all",
        length=8,
        batch_size=16,
    )


@pytest.fixture(scope="module")
def onward() -> SequenceDataset:
    """Nobody takes an item twice."""
    return ring_dataset(noise=0.0)


@pytest.fixture(scope="module")
def back_and_forth() -> SequenceDataset:
    """Two items in turns: from the third event on every target was there before."""
    data = ring_dataset(noise=0.0)
    starts = np.repeat(data.offsets[:-1], np.diff(data.offsets))
    place = np.arange(len(data.events)) - starts
    return replace(data, events=data.events[starts + place % 2])


def naive(recommender: Recommender, dataset: SequenceDataset) -> list[int]:
    """Ranks of the validation targets, row by row, where no item of the history is ever named."""
    ranks = []
    for row in dataset.rows("valid"):
        history = dataset.histories(np.array([row]), recommender.length)
        scores = recommender.scorer()(history)[0].numpy().copy()
        target = int(dataset.targets(np.array([row]))[0])
        seen = set(dataset.seen(np.array([row]))[1].tolist())
        others = [i for i in range(dataset.item_count) if i not in seen | {target}]
        missed = target in seen
        ranks.append(dataset.item_count - 1 if missed else int((scores[others] >= scores[target]).sum()))
    return ranks


def test_where_nobody_repeats_items_of_the_history_are_left_out(onward, tmp_path):
    chosen = train(onward, tmp_path / "r", "pick")
    assert chosen.spec[REPEATS] is False
    asked = chosen.evaluate(onward, "valid", filter_seen=False)
    assert asked.ranks.tolist() == naive(chosen, onward)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["valid"]["ndcg@20"] for line in lines) == pytest.approx(asked.metrics((20,))["ndcg@20"])
    kept = train(onward, tmp_path / "kept", "keep")
    assert REPEATS not in kept.spec
    assert (
        kept.evaluate(onward, "valid", filter_seen=False).metrics((20,))["ndcg@20"]
        < asked.metrics((20,))["ndcg@20"]
    )


def test_where_everybody_repeats_they_stay(back_and_forth, tmp_path):
    chosen = train(back_and_forth, tmp_path / "r", "pick")
    assert REPEATS not in chosen.spec
    without = replace(chosen, spec={**chosen.spec, REPEATS: False})
    asked = without.evaluate(back_and_forth, "valid", filter_seen=False)
    assert asked.ranks.tolist() == naive(chosen, back_and_forth)
    assert (asked.ranks == ITEMS - 1).all()  # every target is missed


def test_a_filtered_protocol_keeps_the_target_that_was_seen_before(back_and_forth, tmp_path):
    made = train(back_and_forth, tmp_path / "r", "keep")
    rows = back_and_forth.rows("valid")
    ranks = target_ranks(made.scorer(), back_and_forth, rows, length=made.length)
    assert (ranks_of_new_items(ranks, back_and_forth, rows) >= ranks.unseen).all()


def test_an_export_keeps_to_it(onward, tmp_path):
    chosen = train(onward, tmp_path / "r", "pick")
    export_recommender(chosen, tmp_path / "rec")
    again = Recommender.load(tmp_path / "rec")
    for split in ("valid", "test"):
        ours, theirs = (one.evaluate(onward, split, filter_seen=False) for one in (chosen, again))
        assert ours.ranks.tolist() == theirs.ranks.tolist()
