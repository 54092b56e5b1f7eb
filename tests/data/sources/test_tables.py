"""The sources for one's own data: RecBole files, csv and parquet, frames, sequences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from recdistill.data import SOURCES, read_frames
from recdistill.errors import DataError


def test_recbole(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ti\t3\t1.5e9\n"
    )
    (tmp_path / "x.item").write_text(
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\ni\tA Title\tDrama War\n"
    )
    for source in (tmp_path, tmp_path / "x.inter"):
        log, items = SOURCES["recbole"](source)
        assert log.frame.rows() == [("u", "i", 1_500_000_000, 3.0)]
        assert items.rows() == [("i", "A Title", "Drama War")]
    (tmp_path / "x.item").unlink()
    assert SOURCES["recbole"](tmp_path)[1].height == 0


def test_recbole_other_names(tmp_path: Path) -> None:
    (tmp_path / "x.inter").write_text("session:token\tbusiness_id:token\ns\tb\n")
    (tmp_path / "x.item").write_text("business_id:token\tlabel:token_seq\nb\tA Title\n")
    names = {"user_id": "session", "item_id": "business_id"}
    _, items = SOURCES["recbole"](tmp_path, columns=names, title_column="label")
    assert items.rows() == [("b", "A Title")]
    assert SOURCES["recbole"](tmp_path, columns=names)[1]["title"].to_list() == [""]
    with pytest.raises(DataError, match=r"x\.item has the columns.*--title-column"):
        SOURCES["recbole"](tmp_path, columns=names, title_column="none")


def test_recbole_mistakes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.inter file"):
        SOURCES["recbole"](tmp_path)
    (tmp_path / "x.inter").write_text("user_id:token\titem_id\nu\ti\n")
    with pytest.raises(DataError, match="column 'item_id' has no type"):
        SOURCES["recbole"](tmp_path)
    (tmp_path / "y.inter").write_text("")
    with pytest.raises(DataError, match=r"several \.inter files \(x\.inter, y\.inter\)"):
        SOURCES["recbole"](tmp_path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_own_files(tmp_path: Path, kind: str) -> None:
    log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["1", "2"], "timestamp": [5, 6]})
    items = pl.DataFrame({"item_id": ["1", "2"], "title": ["A, B", "C"], "year": [1990, 2000]})
    for name, table in (("interactions", log), ("items", items)):
        if kind == "parquet":
            table.write_parquet(tmp_path / f"{name}.parquet")
        else:
            table.write_csv(tmp_path / f"{name}.{kind}", separator="," if kind == "csv" else "\t")
    for source in (tmp_path, tmp_path / f"interactions.{kind}"):
        read, table = SOURCES["csv"](source)
        assert read.frame.rows() == log.rows()
        assert table["title"].to_list() == ["A, B", "C"]


def test_own_columns(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("who;what;when\nu;1;2020-01-01\n")
    (tmp_path / "things.csv").write_text("what,label\n1,A\n")
    names = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    log, items = SOURCES["csv"](
        tmp_path / "log.txt",
        items=tmp_path / "things.csv",
        columns=names,
        title_column="label",
        separator=";",
    )
    assert log.frame.rows() == [("u", "1", 1_577_836_800)]
    assert items.rows() == [("1", "A")]
    (tmp_path / "things.csv").write_text("item_id,label\n1,A\n")  # the items may keep our name
    assert (
        SOURCES["csv"](
            tmp_path / "log.txt",
            items=tmp_path / "things.csv",
            columns=names,
            title_column="label",
            separator=";",
        )[1].height
        == 1
    )
    with pytest.raises(DataError, match="no column 'title'"):
        SOURCES["csv"](tmp_path / "log.txt", items=tmp_path / "things.csv", columns=names, separator=";")


def test_own_files_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds none of interactions\.csv.*--source FILE"):
        SOURCES["csv"](tmp_path)
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,i\n")
    log, items = SOURCES["csv"](tmp_path)
    assert not log.has_time
    assert items.columns == ["item_id", "title"]


def test_frames() -> None:
    log, items = read_frames({"user_id": [1], "item_id": [2]}, pd.DataFrame({"item_id": [2], "title": ["A"]}))
    assert log.frame.rows() == [(1, 2)]
    assert items.rows() == [(2, "A")]
    assert read_frames({"user_id": [1], "item_id": [2]})[1].height == 0
    with pytest.raises(DataError, match="the items have no column 'title'"):
        read_frames({"user_id": [1], "item_id": [2]}, pl.DataFrame({"item_id": [2]}))


def test_sequences(tmp_path: Path) -> None:
    (tmp_path / "sequences.tsv").write_text("user_id\titem_ids_in_time_order\nb\t3 1  2 \na\t1\n")
    (tmp_path / "items.tsv").write_text('item_id\tasin\ttitle\n1\tA1\t"Half quoted\n2\tA2\t\n')
    log, items = SOURCES["sequences"](tmp_path)
    assert log.frame.rows() == [("b", "3"), ("b", "1"), ("b", "2"), ("a", "1")]
    assert items["title"].to_list() == ['"Half quoted', None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\tx\ty\n1\t2\t3\n", "has the columns user_id, x, y"),
        ("user\tids_in_time_order\n1\t2\n", "has the columns user, ids_in_time_order"),
        ("user_id\titems\n1\t2\n1\t3\n", "line 3: user '1' has a line already"),
        ("user_id\titems\n1\t \n", "holds no event"),
    ],
)
def test_sequences_mistakes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sequences.tsv").write_text(text)
    with pytest.raises(DataError, match=message):
        SOURCES["sequences"](tmp_path)
