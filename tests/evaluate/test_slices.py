from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from recdistill.data import Catalogue, SequenceDataset
from recdistill.errors import ConfigError
from recdistill.evaluate import (
    history_length_slices,
    hop_distances,
    hop_slices,
    popularity_slices,
    slice_masks,
)
from recdistill.evaluate import slices as module
from recdistill.evaluate.slices import transition_graph
from references import metrics as naive
from shop import ring_dataset


def dataset_of(sequences, items, *, test_tail=1):
    """Each sequence's last `test_tail` events are test targets, the others (but the first) training targets."""
    lengths = np.array([len(s) for s in sequences])
    offsets = np.concatenate([[0], lengths.cumsum()])
    rows = [
        (offsets[u] + p, u, 2 if p >= n - test_tail else 0)
        for u, n in enumerate(lengths)
        for p in range(1, n)
    ]
    events, owners, splits = (np.array(column) for column in zip(*rows, strict=True))
    names = [str(item) for item in range(items)]
    return SequenceDataset(
        catalogue=Catalogue(pl.DataFrame({"item_id": names, "title": names})),
        events=np.array([item for s in sequences for item in s]),
        offsets=offsets,
        row_ids=np.arange(len(rows)),
        row_events=events,
        row_sequences=owners,
        row_splits=splits.astype(np.int8),
    )


def test_all_slices_are_partitions():
    dataset = ring_dataset()
    rows = dataset.rows("test")
    masks = slice_masks(dataset, rows)
    assert list(masks) == ["target popularity", "history length", "hop distance"]
    for group in masks.values():
        assert (np.sum(list(group.values()), axis=0) == 1).all()
        assert all(mask.any() for mask in group.values())


def test_head_holds_the_share_and_cold_has_no_training_target():
    # Training targets: item 1 eight times, item 2 once, item 3 once; the first events 0 are no targets.
    sequences = [[0, 1, 1, 1, 1, 4], [0, 1, 1, 1, 1, 2], [0, 2, 3, 1]]
    dataset = dataset_of(sequences, 6)
    assert dataset.popularity.tolist() == [0, 8, 1, 1, 0, 0]
    rows = dataset.rows("test")
    masks = popularity_slices(dataset, rows)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "head": [False, False, True],
        "tail": [False, True, False],
        "cold": [True, False, False],
    }
    # Above 80 % the next most popular are needed: both, as they are equally popular.
    assert popularity_slices(dataset, rows, head_share=0.85)["head"].tolist() == [False, True, True]


def test_an_item_that_only_a_history_names_is_not_cold():
    dataset = dataset_of([[5, 1, 1, 5], [0, 1, 1, 4]], 6)
    assert dataset.popularity[[4, 5]].tolist() == [0, 0]
    assert dataset.cold_items.tolist() == [False, False, True, True, True, False]
    masks = popularity_slices(dataset, dataset.rows("test"))
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "tail": [True, False],
        "cold": [False, True],
    }


def test_history_length_bins():
    dataset = dataset_of([[0, 1], [0] * 6 + [1], [0] * 4 + [1], [0] * 60], 3)
    rows = dataset.rows("test")
    assert dataset.history_lengths(rows).tolist() == [1, 6, 4, 59]
    masks = history_length_slices(dataset, rows)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()} == {
        "1-5": [0, 2],
        "6-10": [1],
        "over 50": [3],
    }
    exact = history_length_slices(dataset, rows, edges=(1, 4, 6))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in exact.items()} == {
        "1": [0],
        "2-4": [2],
        "5-6": [1],
        "over 6": [3],
    }


def test_hops_on_a_chain():
    # Training knows 0-1-2-3-4-5; the test rows start elsewhere on the chain.
    chain = [0, 1, 2, 3, 4, 5, 9]
    tests = [[0, 1], [1, 0], [0, 2], [0, 3], [5, 2], [0, 4], [0, 8], [7, 0], [3, 3]]
    dataset = dataset_of([chain, *tests], 10)
    rows = dataset.rows("test")[1:]
    assert hop_distances(dataset, rows).tolist() == [1, 1, 2, 3, 3, 4, 4, 4, 0]
    assert hop_distances(dataset, rows, max_hops=1).tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 0]
    names = {name: int(mask.sum()) for name, mask in hop_slices(dataset, rows).items()}
    assert names == {"seen before": 1, "1 hop": 2, "2 hops": 1, "3 hops": 2, "over 3 hops": 3}


def test_test_events_are_no_part_of_the_graph():
    dataset = dataset_of([[0, 1, 2]], 3)
    graph = transition_graph(dataset).toarray()
    assert graph.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert hop_distances(dataset, dataset.rows("test")).tolist() == [4]


@pytest.mark.parametrize("seed", range(4))
def test_hops_agree_with_breadth_first_search(seed, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_MOST", 7)  # several chunks
    rng = np.random.default_rng(seed)
    items = 60
    sequences = [rng.integers(0, items, rng.integers(2, 5)).tolist() for _ in range(40)]
    dataset = dataset_of(sequences, items)
    edges = {(a, b) for s in sequences for a, b in pairwise(s[:-1])}
    expected = [naive.hops(edges, s[:-1], s[-1], 3) for s in sequences]
    assert len(set(expected)) > 2
    assert hop_distances(dataset, dataset.rows("test")).tolist() == expected


def test_wrong_options_are_refused():
    dataset = ring_dataset(users=5)
    rows = dataset.rows("test")
    with pytest.raises(ConfigError, match="head_share"):
        popularity_slices(dataset, rows, head_share=1.0)
    with pytest.raises(ConfigError, match="ascend"):
        history_length_slices(dataset, rows, edges=(5, 5))
    with pytest.raises(ConfigError, match="max_hops"):
        hop_distances(dataset, rows, max_hops=0)
