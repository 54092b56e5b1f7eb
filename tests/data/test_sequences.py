from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill.data import PREFIX, SPLIT_NAMES, Catalogue, SequenceDataset, gather_windows
from recdistill.errors import DataError, RunError
from recdistill.types import PAD
from shop import ring_dataset


def small(**changes: object) -> SequenceDataset:
    """Two sequences: 0 1 2 3 | 4 5; a train, a valid, a test row in the first, a prefix row in the second."""
    parts: dict[str, object] = {
        "catalogue": Catalogue(pl.DataFrame({"item_id": list("abcdef"), "title": [""] * 6})),
        "events": np.arange(6),
        "offsets": np.array([0, 4, 6]),
        "row_ids": np.array([10, 11, 12, 20]),
        "row_events": np.array([1, 2, 3, 5]),
        "row_sequences": np.array([0, 0, 0, 1]),
        "row_splits": np.array([0, 1, 2, 3], dtype=np.int8),
        "provenance": {"name": "small"},
    }
    return SequenceDataset(**{**parts, **changes})  # type: ignore[arg-type]


def test_rows_targets_histories() -> None:
    data = small()
    assert data.rows("train").tolist() == [0]
    assert data.rows("train", prefixes=True).tolist() == [0, 3]
    rows = np.arange(4)
    assert data.targets(rows).tolist() == [1, 2, 3, 5]
    assert data.history_lengths(rows).tolist() == [1, 2, 3, 1]
    assert data.histories(rows, 2).tolist() == [[0, PAD], [0, 1], [1, 2], [4, PAD]]
    assert data.histories(rows, 4)[2].tolist() == [0, 1, 2, PAD]
    owners, items = data.seen(rows)
    assert owners.tolist() == [0, 1, 1, 2, 2, 2, 3]
    assert items.tolist() == [0, 0, 1, 0, 1, 2, 4]
    assert data.popularity.tolist() == [0, 1, 0, 0, 0, 0]
    assert data.train_event_mask.tolist() == [True, True, False, False, True, True]


def test_row_ids_lead_to_positions() -> None:
    data = small()
    assert data.positions_of([20, 10]).tolist() == [3, 0]
    for unknown in (13, 99, -1):
        with pytest.raises(DataError, match=f"row id {unknown} is not in dataset 'small'"):
            data.positions_of([10, unknown])


def test_a_dataset_without_rows_knows_no_ids() -> None:
    empty = np.array([], dtype=np.int64)
    data = small(row_ids=empty, row_events=empty, row_sequences=empty, row_splits=empty.astype(np.int8))
    assert len(data.fingerprint) == 64
    with pytest.raises(DataError, match="row id 0"):
        data.positions_of([0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_ids": np.array([10, 12, 11, 20])}, "unique and ascending"),
        ({"row_events": np.array([0, 2, 3, 5])}, "empty history"),
        ({"events": np.array([0, 1, 2, 3, 4, 6])}, r"outside 0\.\.5"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small(**change)


@pytest.mark.parametrize("timestamps", [None, np.arange(6)])
def test_save_and_load(tmp_path: Path, timestamps: object) -> None:
    data = small(timestamps=timestamps)
    data.save(tmp_path / "d")
    back = SequenceDataset.load(tmp_path / "d")
    assert back.fingerprint == data.fingerprint
    assert back.name == "small"
    for name in ("events", "offsets", "row_ids", "row_events", "row_sequences", "row_splits", "timestamps"):
        assert np.array_equal(getattr(back, name), getattr(data, name)), name
    with pytest.raises(RunError, match="already exists"):
        data.save(tmp_path / "d")
    data.save(tmp_path / "d", overwrite=True)


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    ring_dataset().save(tmp_path / "d")
    path = tmp_path / "d" / "events.parquet"
    pl.read_parquet(path).with_columns(item=pl.col("item").reverse()).write_parquet(path)
    with pytest.raises(DataError, match="changed after it was written"):
        SequenceDataset.load(tmp_path / "d")
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        SequenceDataset.load(tmp_path / "d")
    path.unlink()
    with pytest.raises(DataError, match=r"events\.parquet cannot be read"):
        SequenceDataset.load(tmp_path / "d")


def test_the_fingerprint_tells_questions_apart() -> None:
    assert small().fingerprint == small(provenance={"name": "other"}).fingerprint
    other = Catalogue(pl.DataFrame({"item_id": list("abcdeg"), "title": [""] * 6}))
    changes = [
        {"events": np.array([0, 1, 2, 3, 5, 4])},
        {"row_ids": np.array([10, 11, 12, 21])},
        {"row_splits": np.array([0, 2, 1, 3], dtype=np.int8)},
        {"catalogue": other},
    ]
    assert len({small(**change).fingerprint for change in [{}, *changes]}) == 5


def test_prefix_is_the_last_split() -> None:
    assert SPLIT_NAMES[-1] == PREFIX


def test_windows_stop_at_the_end_of_the_table() -> None:
    windows = gather_windows(np.arange(3), np.array([2, 0]), np.array([1, 3]), 4)
    assert windows.tolist() == [[2, PAD, PAD, PAD], [0, 1, 2, PAD]]
