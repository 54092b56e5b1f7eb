from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recdistill.cli.data import app
from recdistill.cli.data_options import HELP
from recdistill.data import SOURCES, SequenceDataset
from recdistill.errors import ConfigError, DataError, RecdistillError, RunError

run = CliRunner().invoke


def ok(*arguments: object) -> str:
    result = run(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def error(*arguments: object) -> BaseException:
    result = run(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, RecdistillError), result.output + repr(result.exception)
    return result.exception


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    folder = tmp_path / "ml"
    folder.mkdir()
    lines = [
        f"{user}::{10 + (user + k) % 5}::{1 + k % 5}::{100 * user + k}"
        for user in range(1, 9)
        for k in range(5)
    ]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    (folder / "movies.dat").write_text("".join(f"{k}::Film {k} (1990)::Drama\n" for k in range(10, 17)))
    return folder


def test_every_source_has_a_command_with_one_line() -> None:
    assert list(HELP) == list(SOURCES)
    text = ok("--help")
    for name in [*SOURCES, "dllm2rec-windows", "stats"]:
        assert f"  {name} " in text
    assert all(len(line) < 60 and line.endswith(".") for line in HELP.values())


def test_help_of_a_source_shows_shared_and_own_options() -> None:
    assert "--category" in ok("amazon-2014", "--help")
    text = ok("csv", "--help")
    for option in (
        "--source",
        "--out",
        "--split",
        "--k-core",
        "--sample-train",
        "--item-column",
        "--separator",
    ):
        assert option in text
    assert "--category" not in text


def test_help_loads_nothing_heavy() -> None:
    heavy = "('torch', 'polars', 'numpy', 'rich.table')"
    code = f"import sys, recdistill.cli.data; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_write_and_describe(movies: Path, tmp_path: Path) -> None:
    out = tmp_path / "d"
    text = ok("movielens-1m", "--source", movies, "--out", out, "--min-rating", "2", "--all-items")
    assert "min_rating 2.0: users 8 → 8, items 5 → 5, interactions 40 → 32" in text
    data = SequenceDataset.load(out)
    assert (data.name, data.item_count, len(data.rows("test"))) == ("movielens-1m", 7, 8)
    assert "movielens-1m" in ok("stats", out)
    figures = json.loads(ok("stats", out, "--json"))
    assert figures["interactions"] == 32
    assert figures["splits"]["valid"]["rows"] == 8


def test_global_time_with_samples(movies: Path, tmp_path: Path) -> None:
    out = tmp_path / "d"
    options = [
        "--split",
        "global-time",
        "--window",
        2,
        "--sample-train",
        5,
        "--sample-test",
        1,
        "--seed",
        3,
        "--name",
        "toys",
    ]
    text = ok("movielens-1m", "--source", movies, "--out", out, *options)
    assert "paper: Toys" in text
    rule = SequenceDataset.load(out).provenance["split"]
    assert (rule["kind"], rule["window"], rule["seed"]) == ("global-time", 2, 3)
    assert len(SequenceDataset.load(out).rows("train")) == 5


def test_check_reads_only(movies: Path) -> None:
    text = ok("movielens-1m", "--source", movies, "--check")
    assert "no bad row: 8 users, 5 items, 40 interactions" in text
    with (movies / "ratings.dat").open("a") as file:
        file.write("1::11::1::100\n")
    assert "is there already (1 such rows)" in ok("movielens-1m", "--source", movies, "--check")
    with (movies / "ratings.dat").open("a") as file:
        file.write("1::11::1::later\n")
    found = error("movielens-1m", "--source", movies, "--check")
    assert isinstance(found, DataError)
    assert "ratings.dat, line 42: timestamp is 'later'" in str(found)


def test_own_columns(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("who,what,when\n" + "".join(f"u,{k},{k}\n" for k in range(4)))
    (tmp_path / "things.csv").write_text("what,label\n1,One\n")
    names = [
        "--user-column",
        "who",
        "--item-column",
        "what",
        "--timestamp-column",
        "when",
        "--title-column",
        "label",
    ]
    ok(
        "csv",
        "--source",
        tmp_path / "log.csv",
        "--items",
        tmp_path / "things.csv",
        "--out",
        tmp_path / "d",
        *names,
    )
    data = SequenceDataset.load(tmp_path / "d")
    assert data.name == "log"
    assert data.catalogue.titles == ["", "One", "", ""]


def test_windows(tmp_path: Path) -> None:
    text = 'seq,len_seq,next,user_id\n"[0, 1, 5]",2,2,7\n"[0, 1, 2]",3,3,7\n'
    for name in ("train_data", "val_data", "test_data"):
        (tmp_path / f"{name}.csv").write_text(text)
    assert "dllm2rec-windows" in ok("dllm2rec-windows", "--source", tmp_path, "--out", tmp_path / "d")
    data = SequenceDataset.load(tmp_path / "d")
    assert data.item_count == 5
    assert len(data.rows("train")) == 2
    assert isinstance(error("dllm2rec-windows", "--out", tmp_path / "e"), ConfigError)


def test_mistakes(movies: Path, tmp_path: Path) -> None:
    assert "--out is missing" in str(error("movielens-1m", "--source", movies))
    assert "--source is missing: csv is not downloaded" in str(error("csv", "--out", tmp_path / "d"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert isinstance(error("movielens-1m", "--source", movies, "--out", tmp_path / "full"), RunError)
    assert isinstance(
        error("movielens-1m", "--source", movies, "--out", tmp_path / "full", "--overwrite"), RunError
    )
    assert (tmp_path / "full" / "x").exists()
