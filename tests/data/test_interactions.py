from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recdistill.data import Interactions, find_duplicate, find_problems
from recdistill.errors import DataError

COLUMNS = {
    "user_id": [1, 1, 2],
    "item_id": ["a", "b", "a"],
    "timestamp": [3, 4, 5],
    "rating": [1.0, 2.0, 3.5],
}


@pytest.mark.parametrize(
    "make", [dict, pl.DataFrame, pd.DataFrame, pa.table, lambda c: pl.DataFrame(c).lazy()]
)
def test_any_kind_of_frame(make: object) -> None:
    log = Interactions.from_frame(make(COLUMNS))  # type: ignore[operator]
    assert log.frame.rows() == pl.DataFrame(COLUMNS).rows()
    assert log.frame.schema["timestamp"] == pl.Int64
    assert log.frame.schema["rating"] == pl.Float32
    assert log.counts() == {"users": 2, "items": 2, "interactions": 3}
    assert log.has_time


def test_columns_are_renamed_and_others_left_out() -> None:
    frame = pl.DataFrame({"who": [1], "what": [2], "note": ["x"]})
    log = Interactions.from_frame(frame, columns={"user_id": "who", "item_id": "what"})
    assert log.frame.columns == ["user_id", "item_id"]
    assert not log.has_time


def test_dates_become_seconds() -> None:
    second = 1_577_836_800
    for value in (
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1),
        "2020-01-01",
        "1577836800.7",
        float(second),
    ):
        log = Interactions.from_frame({"user_id": [1], "item_id": [1], "timestamp": [value]})
        assert log.frame["timestamp"].to_list() == [second]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("u2,,5,1", "line 3: item_id is missing"),
        (",i2,5,1", "line 3: user_id is missing"),
        ("u2,i2,soon,1", "line 3: timestamp is 'soon'. Allowed: seconds since 1970"),
        ("u2,i2,,1", "line 3: timestamp is missing"),
        ("u2,i2,inf,1", "line 3: timestamp is 'inf'"),
        ("u2,i2,5,good", "line 3: rating is 'good'. Allowed: a number"),
    ],
)
def test_the_first_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user_id,item_id,timestamp,rating\nu1,i1,4,1\n{row}\n{row}\nu1,i1,5,1\n")
    with pytest.raises(DataError, match=r"log\.csv, ") as error:
        Interactions.read(path)
    assert message in str(error.value)


def test_problems_come_in_the_order_of_the_rows() -> None:
    table = pl.DataFrame(
        {"user_id": ["a", "b", None], "item_id": ["a", None, "c"], "timestamp": ["x", "1", "2"]}
    )
    found = find_problems(table, origin="f", first_line=1)
    assert [text.split(":")[0] for text in found] == ["f, line 1", "f, line 2", "f, line 3"]


def test_a_wrong_value_before_a_missing_one_comes_first() -> None:
    table = pl.DataFrame({"user_id": ["a"] * 3, "item_id": ["b"] * 3, "timestamp": ["1", "x", None]})
    assert [text.split(" is ")[0] for text in find_problems(table)] == [
        "the frame, row 1: timestamp",
        "the frame, row 2: timestamp",
    ]


def test_read_keeps_ids_as_text(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv.gz"
    path.write_bytes(gzip.compress(b"user_id\titem_id\ttimestamp\n1\t0054890\t7\n"))
    log = Interactions.read(path)
    assert log.frame.row(0) == ("1", "0054890", 7)
    assert len(log.provenance["files"]["log.tsv.gz"]) == 64


def test_parquet(tmp_path: Path) -> None:
    pl.DataFrame(COLUMNS).write_parquet(tmp_path / "log.parquet")
    assert len(Interactions.read(tmp_path / "log.parquet")) == 3


def test_missing_files_and_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Interactions.read(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        Interactions.read(tmp_path / "empty.csv")
    with pytest.raises(DataError, match=r"no column 'item_id'.*--item-column"):
        Interactions.from_frame({"user_id": [1], "movie": [2]})
    with pytest.raises(DataError, match="no column 'when'"):
        Interactions.from_frame({"user_id": [1], "item_id": [2]}, columns={"timestamp": "when"})
    with pytest.raises(DataError, match="is no table"):
        Interactions.from_frame(object())


def test_duplicates_are_told_and_kept() -> None:
    frame = pl.DataFrame({"user_id": [1, 1, 1, 1], "item_id": [2, 2, 2, 3], "timestamp": [5, 6, 5, 5]})
    sentence = find_duplicate(Interactions.from_frame(frame).frame, origin="f", first_line=1)
    assert sentence is not None
    assert sentence.startswith("f, line 3: user 1 with item 2 at 5 is there already (1 such rows)")
    assert find_duplicate(frame.head(2)) is None
    assert find_duplicate(frame.drop("timestamp")) is None
