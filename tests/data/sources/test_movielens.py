from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from recdistill.data import SOURCES
from recdistill.errors import DataError

RATINGS = [(1, 10, 4, 100), (1, 20, 3, 90), (2, 10, 5, 50)]


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (folder / name).write_bytes(text.encode(encoding))


def dat(folder: Path, ratings: str = "") -> None:
    write(folder, "ratings.dat", ratings or "".join("::".join(map(str, row)) + "\n" for row in RATINGS))
    write(
        folder,
        "movies.dat",
        "10::Café: Noir (1995)::Drama|Comedy\n20::A::B (1990)::(no genres listed)\n",
        "latin-1",
    )


@pytest.mark.parametrize("size", ["1m", "10m"])
def test_dat_files(tmp_path: Path, size: str) -> None:
    dat(tmp_path)
    log, items = SOURCES[f"movielens-{size}"](tmp_path)
    assert log.frame.select("user_id", "item_id", "rating", "timestamp").rows() == RATINGS
    assert items.rows() == [("10", "Café: Noir (1995)", "Drama, Comedy"), ("20", "A::B (1990)", "")]
    assert set(log.provenance["files"]) == {"ratings.dat", "movies.dat"}


def test_10m_movies_may_be_utf8(tmp_path: Path) -> None:
    dat(tmp_path)
    write(tmp_path, "movies.dat", "10::Café (1995)::Drama\n")
    assert SOURCES["movielens-10m"](tmp_path)[1]["title"][0] == "Café (1995)"


def test_order_only(tmp_path: Path) -> None:
    dat(tmp_path)
    (tmp_path / "ratings.dat").unlink()
    write(tmp_path, "sequences.tsv", "user_id\tmovie_ids_in_time_order\n1\t20 10\n2\t10\n")
    log, _ = SOURCES["movielens-1m"](tmp_path)
    assert log.frame.rows() == [(1, 20), (1, 10), (2, 10)]
    assert not log.has_time


def test_100k(tmp_path: Path) -> None:
    write(tmp_path, "u.data", "".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    flags = ["0"] * 19
    flags[1] = flags[18] = "1"
    write(
        tmp_path,
        "u.item",
        "|".join(["10", "Café (1995)", "01-Jan-1995", "", "http://x", *flags]) + "\n",
        "latin-1",
    )
    log, items = SOURCES["movielens-100k"](tmp_path)
    assert log.frame.select("user_id", "item_id", "rating", "timestamp").rows() == RATINGS
    assert items.rows() == [("10", "Café (1995)", "Action, Western")]


@pytest.mark.parametrize("size", ["20m", "25m", "32m", "latest-small"])
def test_csv_files_compressed_and_one_folder_down(tmp_path: Path, size: str) -> None:
    folder = tmp_path / "ml"
    folder.mkdir()
    text = "userId,movieId,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in RATINGS)
    (folder / "ratings.csv.zst").write_bytes(zstandard.compress(text.encode()))
    write(folder, "movies.csv", 'movieId,title,genres\n10,"Café, ""The"" (1995)",Drama\n')
    log, items = SOURCES[f"movielens-{size}"](tmp_path)
    assert log.frame.select("user_id", "item_id", "rating", "timestamp").rows() == RATINGS
    assert items["title"][0] == 'Café, "The" (1995)'


def test_movietweetings_keeps_leading_zeros(tmp_path: Path) -> None:
    write(tmp_path, "ratings.dat", "1::0054890::9::100\n")
    write(tmp_path, "movies.dat", "0054890::The Guns of Navarone (1961)::War\n")
    log, items = SOURCES["movietweetings"](tmp_path)
    assert log.frame["item_id"][0] == items["item_id"][0] == "0054890"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::ten::4::100", "ratings.dat, line 2: item_id is 'ten'. Allowed: a whole number"),
        ("1::10::4::soon", "ratings.dat, line 2: timestamp is 'soon'"),
        ("1::10::good::100", "ratings.dat, line 2: rating is 'good'"),
        ("1::::4::100", "ratings.dat, line 2: item_id is missing"),
    ],
)
def test_the_first_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    dat(tmp_path, f"1::10::4::100\n{line}\n")
    with pytest.raises(DataError) as error:
        SOURCES["movielens-1m"](tmp_path)
    assert message in str(error.value)


def test_the_message_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        SOURCES["movielens-1m"](tmp_path / "none")
    with pytest.raises(
        DataError, match=r"holds no movies\.dat .*grouplens\.org/datasets/movielens/1m/ and put it there"
    ):
        SOURCES["movielens-1m"](tmp_path)
    dat(tmp_path)
    (tmp_path / "ratings.dat").unlink()
    with pytest.raises(DataError, match=r"holds no ratings\.dat"):
        SOURCES["movielens-1m"](tmp_path)
    write(tmp_path, "movies.dat", "10::only two\n")
    with pytest.raises(DataError, match=r"movies\.dat, line 1: 2 fields"):
        SOURCES["movielens-1m"](tmp_path)
