"""The clock of rows: the best that each dataset has, and never against the order of a sequence."""

from dataclasses import replace

import numpy as np
import pytest

from recdistill.data.clock import RowClock
from recdistill.data.interactions import Interactions
from recdistill.data.prepare import prepare
from recdistill.types import PAD
from shop import ring_dataset


def timed(split):
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 30, 400))
    frame = {"user_id": users, "item_id": rng.integers(0, 25, 400), "timestamp": rng.integers(0, 300, 400)}
    return prepare(Interactions.from_frame(frame), None, split=split, window=4)


@pytest.mark.parametrize("split", ["leave-one-out", "global-time"])
def test_timestamps_of_the_targets(split):
    dataset = timed(split)
    clock = RowClock.of(dataset)
    assert clock.kind == "timestamps"
    naive = [int(dataset.timestamps[event]) for event in dataset.row_events]
    assert clock.times.tolist() == naive


def test_windows_without_timestamps_go_by_row_id():
    dataset = timed("global-time")
    times = RowClock.of(dataset).times
    clock = RowClock.of(replace(dataset, timestamps=None))
    assert clock.kind == "row order"
    prefix = np.zeros(len(times), dtype=bool)
    prefix[np.setdiff1d(dataset.rows("train", prefixes=True), dataset.rows("train"))] = True
    assert prefix.any()
    assert (clock.times[prefix] == PAD).all()
    assert (clock.times[~prefix] == dataset.row_ids[~prefix]).all()
    earlier = clock.times[~prefix][:, None] < clock.times[~prefix]  # never against the true order
    assert (times[~prefix][:, None] <= times[~prefix])[earlier].all()


def test_sequences_without_timestamps_go_by_position():
    dataset = ring_dataset()
    clock = RowClock.of(dataset)
    assert clock.kind == "position in the sequence"
    naive = [
        event - dataset.offsets[owner]
        for event, owner in zip(dataset.row_events, dataset.row_sequences, strict=True)
    ]
    assert clock.times.tolist() == naive
