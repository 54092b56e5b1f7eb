from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from recdistill.data import SOURCES
from recdistill.data.sources import amazon
from recdistill.errors import DataError


def put(folder: Path, name: str, lines: list[object], form: object = json.dumps) -> None:
    text = "\n".join(line if isinstance(line, str) else form(line) for line in lines) + "\n"  # type: ignore[operator]
    (folder / name).write_bytes(gzip.compress(text.encode()))


def review(user: str, item: str, time: int, **more: object) -> dict[str, object]:
    return {
        "reviewerID": user,
        "asin": item,
        "overall": 4.0,
        "unixReviewTime": time,
        "reviewText": "x",
        **more,
    }


META = {
    "asin": "B1",
    "title": "It's a &quot;toy&quot;",
    "brand": "Acme",
    "description": "Fun.\n Very.",
    "price": 3.5,
}


def test_2014_metadata_are_python_literals(tmp_path: Path) -> None:
    put(tmp_path, "reviews_Toys_5.json.gz", [review("u", "B1", 5), review("u", "B2", 6)])
    literal = {**META, "categories": [["Toys", "Games"], ["Other"]], "related": {"also_bought": ["B2"]}}
    put(tmp_path, "meta_Toys.json.gz", [literal, {"asin": "B2"}, {"asin": "unmet", "title": "y"}], repr)
    log, items = SOURCES["amazon-2014"](tmp_path)
    assert log.frame.rows() == [("u", "B1", 5, 4.0), ("u", "B2", 6, 4.0)]
    assert log.provenance["category"] == "Toys"
    assert items.rows() == [
        ("B1", "It's a &quot;toy&quot;", "Toys > Games", "Acme", "Fun. Very."),
        ("B2", "", "", "", ""),
    ]


def test_2018_metadata_are_json_with_scripts_for_titles(tmp_path: Path) -> None:
    put(tmp_path, "Video_Games_5.json.gz", [review("u", "B1", 5, image=["x"]), review("v", "B2", 6)])
    records = [
        {**META, "category": ["Video Games", "PC"], "description": ["Fun.", "Very."]},
        {**META, "title": "second record of the same item"},
        {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();"},
    ]
    put(tmp_path, "meta_Video_Games.json.gz", records)
    log, items = SOURCES["amazon-2018"](tmp_path)
    assert log.provenance["category"] == "Video_Games"
    assert items.rows() == [
        ("B1", "It's a &quot;toy&quot;", "Video Games > PC", "Acme", "Fun. Very."),
        ("B2", "", "", "", ""),
    ]


def test_2023_time_is_in_milliseconds(tmp_path: Path) -> None:
    lines = [
        {"user_id": "u", "parent_asin": "P2", "asin": "B2", "rating": 5.0, "timestamp": 1_500_000_000_900},
        {"user_id": "u", "parent_asin": "P1", "asin": "B1", "rating": 3.0, "timestamp": 1_500_000_000_100},
    ]
    put(tmp_path, "Toys_and_Games.jsonl.gz", lines)
    put(
        tmp_path,
        "meta_Toys_and_Games.jsonl.gz",
        [{"parent_asin": "P1", "title": "T", "store": "S", "categories": ["C"]}],
    )
    log, items = SOURCES["amazon-2023"](tmp_path)
    assert log.frame.rows() == [("u", "P1", 1_500_000_000, 3.0), ("u", "P2", 1_500_000_000, 5.0)]
    assert items.rows() == [("P1", "T", "C", "S", "")]
    assert log.provenance["category"] == "Toys_and_Games"


def test_blocks_are_cut_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amazon, "_BLOCK", 50)
    put(tmp_path, "reviews_T_5.json.gz", [review(f"u{k}", "B1", k) for k in range(20)])
    put(tmp_path, "meta_T.json.gz", [META], repr)
    log, _ = SOURCES["amazon-2014"](tmp_path)
    assert log.frame["user_id"].to_list() == [f"u{k}" for k in range(20)]


@pytest.mark.parametrize(
    "evil", ["__import__('os').system('true')", "{'asin': __import__('os')}", "[" * 5000, "{'asin'"]
)
def test_literals_are_not_run(tmp_path: Path, evil: str) -> None:
    put(tmp_path, "reviews_T_5.json.gz", [review("u", "B1", 5)])
    put(tmp_path, "meta_T.json.gz", [META, evil], repr)
    with pytest.raises(DataError, match=r"meta_T\.json\.gz, line 2: no Python dictionary"):
        SOURCES["amazon-2014"](tmp_path)


def test_the_bad_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "meta_T.json.gz", [META])
    put(tmp_path, "T_5.json.gz", [review("u", "B1", 5), "{broken"])
    with pytest.raises(DataError, match=r"T_5\.json\.gz, line 2: no JSON dictionary"):
        SOURCES["amazon-2018"](tmp_path)
    put(tmp_path, "T_5.json.gz", [review("u", "B1", 5), {"asin": "B1", "overall": 3}])
    with pytest.raises(DataError, match=r"T_5\.json\.gz, line 2: user_id is missing"):
        SOURCES["amazon-2018"](tmp_path)
    monkeypatch.setattr(amazon, "LONGEST_LINE", 100)
    put(tmp_path, "T_5.json.gz", [review("u", "B1", 5)])
    with pytest.raises(DataError, match="line 1: longer than 100 bytes"):
        SOURCES["amazon-2018"](tmp_path)


def test_which_file_is_missing_or_meant(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no reviews_\*_5\.json\.gz \(reviews\)\. Get it from https://cseweb"
    ):
        SOURCES["amazon-2014"](tmp_path)
    for category in ("A", "B"):
        put(tmp_path, f"reviews_{category}_5.json.gz", [review("u", "B1", 5)])
    with pytest.raises(DataError, match=r"several files of reviews.*--category NAME"):
        SOURCES["amazon-2014"](tmp_path)
    with pytest.raises(DataError, match=r"holds no meta_B\.json\.gz"):
        SOURCES["amazon-2014"](tmp_path, category="B")
