"""The counts of the real files, where they are at hand (environment variable RECDISTILL_DATA)."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recdistill.data import SOURCES, Interactions, normalise_title, prepare, read_windows
from recdistill.data.files import read_table, read_text
from recdistill.data.sources.windows import find_window_files

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("RECDISTILL_DATA" not in os.environ, reason="RECDISTILL_DATA is not set"),
]
FOLDER = Path(os.environ.get("RECDISTILL_DATA", "."))


@pytest.mark.parametrize(
    ("source", "folder", "counts"),
    [
        ("movielens-100k", "ml-100k", (943, 1682, 100_000)),
        ("movielens-1m", "ml-1m", (6040, 3416, 999_611)),
        ("movielens-latest-small", "ml-latest-small", (610, 9724, 100_836)),
        ("movietweetings", "movietweetings-2013", (21_081, 12_611, 141_695)),
        ("sequences", "amazon-toys-2014", (19_412, 11_924, 167_597)),
        ("sequences", "amazon-games-2018", (50_546, 16_859, 452_989)),
    ],
)
def test_counts(source: str, folder: str, counts: tuple[int, int, int]) -> None:
    log, items = SOURCES[source](FOLDER / folder)
    assert tuple(log.counts().values()) == counts
    dataset = prepare(log, items)
    assert dataset.item_count == counts[1]
    assert dataset.catalogue.title_report()["missing"] == (59 if "toys" in folder else 0)


def test_toys_windows_are_those_of_the_bigrec_split() -> None:
    """LLM4DSR published BIGRec's test windows of Toys: the same times, and the same targets but for ties."""
    folder = FOLDER / "amazon-toys-2014"
    log = Interactions.read(folder / "interactions_with_timestamps.tsv.zst")
    _, items = SOURCES["sequences"](folder)
    dataset = prepare(log, items, split="global-time")
    counts = {"train": 38_344, "valid": 4_793, "test": 4_794, "prefix": 89_251}
    assert dataset.provenance["counts"]["rows"] == counts
    published = read_table(folder / "llm4dsr_bigrec_split" / "test.csv.zst")
    names = json.loads(read_text(folder / "llm4dsr_bigrec_split" / "id2name.json.zst"))
    rows = dataset.rows("test")
    assert dataset.timestamps is not None
    times = dataset.timestamps[dataset.row_events[rows]].tolist()
    assert times == published["timestamp"].cast(pl.Int64).to_list()
    ours = Counter(zip(times, (dataset.catalogue.titles[k] for k in dataset.targets(rows)), strict=True))
    windows = [json.loads(text) for text in published["item_ids"]]
    targets = (normalise_title(names.get(str(window[-1]), "")) for window in windows)
    theirs = Counter(zip(times, targets, strict=True))
    assert (ours & theirs).total() > 0.99 * len(rows)  # 4,761 of 4,794; items can share a day and a title
    lengths = np.minimum(dataset.history_lengths(rows), 10)
    differences = Counter(len(window) - 1 for window in windows) - Counter(lengths.tolist())
    assert differences.total() <= 1


def test_the_authors_windows_come_back() -> None:
    paths = find_window_files(FOLDER / "dllm2rec-game")
    dataset = read_windows(**paths)  # type: ignore[arg-type]
    assert dataset.item_count == 17_408
    assert {split: len(dataset.rows(split)) for split in ("train", "valid", "test")} == {  # type: ignore[arg-type]
        "train": 103_424,
        "valid": 14_980,
        "test": 14_980,
    }
    table = read_table(paths["test"])
    lists = np.array([json.loads(text) for text in table["seq"]])
    rows = dataset.rows("test")
    assert np.array_equal(np.where(lists == 17_408, -1, lists), dataset.histories(rows, 10))
    assert np.array_equal(table["next"].cast(pl.Float64).cast(pl.Int64).to_numpy(), dataset.targets(rows))
    titled = sum(bool(title) for title in dataset.catalogue.titles)
    assert titled == 13_494  # the ids with support >= 0.8
