"""Recommendations for files: the same answers as one by one, whole files or none, and a killed job goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import export_students as students
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, DataError, RunError
from recdistill.export import Recommender, export_recommender, recommend_file
from recdistill.export import batch as batch_module
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def data() -> SequenceDataset:
    return ring_dataset()


@pytest.fixture(scope="module")
def model(data: SequenceDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batch") / "rec"
    export_recommender(students.recommender(data, "sasrec-paper"), folder, dataset=data)
    return folder


def histories(count: int, seed: int = 0) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[f"i{item:02d}" for item in rng.integers(ITEMS, size=rng.integers(1, 14))] for _ in range(count)]


def write(path: Path, lines: list[list[str]]) -> Path:
    users = [f"u{number}" for number in range(len(lines))]
    pl.DataFrame(
        {"user_id": users, "history": lines}, schema_overrides={"history": pl.List(pl.String)}
    ).write_parquet(path)
    return path


def expected(model: Path, lines: list[list[str]], k: int, exclude: bool) -> list[list[str]]:
    """One history after the other."""
    recommender = Recommender.load(model)
    return [recommender.recommend([line], k, exclude_seen=exclude)["item_id"].to_list() for line in lines]


@pytest.mark.parametrize("exclude", [True, False])
def test_the_same_as_one_by_one(model: Path, tmp_path: Path, exclude: bool) -> None:
    lines = histories(37)
    source = write(tmp_path / "h.parquet", lines)
    heard: list[int] = []
    report = recommend_file(
        model,
        source,
        tmp_path / "recs.parquet",
        k=7,
        exclude_seen=exclude,
        shard_rows=10,
        batch_size=4,
        progress=heard.append,
    )
    found = pl.read_parquet(tmp_path / "recs.parquet")
    assert found["items"].to_list() == expected(model, lines, 7, exclude)
    assert found["user_id"].to_list() == [f"u{number}" for number in range(37)]
    assert found.schema["scores"] == pl.List(pl.Float32)
    assert all(line == sorted(line, reverse=True) for line in found["scores"].to_list())
    assert (report.rows, report.answered, heard) == (37, 37, [10, 10, 10, 7])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.parquet", "recs.parquet"]


def test_run_folders_titles_numbers_and_short_lists(data: SequenceDataset, tmp_path: Path) -> None:
    """A recommender folder answers as well; titles are found; where little is left, lists are short."""
    students.recommender(data).save(tmp_path / "plain")
    everything = [f"i{item:02d}" for item in range(ITEMS)]
    lines = [["Saga 0 part 1", "i05"], everything[:-2], ["saga 0 PART 1", "i05"]]
    source = write(tmp_path / "h.parquet", lines)
    recommend_file(tmp_path / "plain", source, tmp_path / "r.parquet", k=5, exclude_seen=True)
    found = pl.read_parquet(tmp_path / "r.parquet")["items"].to_list()
    assert found[0] == found[2] == expected(tmp_path / "plain", [["i01", "i05"]], 5, True)[0]
    assert set(found[1]) == {"i38", "i39"}


def test_unknown_items_are_refused_or_skipped(model: Path, tmp_path: Path) -> None:
    lines = [["i00"], ["i01", "nowhere"], ["nowhere"], []]
    source = write(tmp_path / "h.parquet", lines)
    out = tmp_path / "r.parquet"
    with pytest.raises(DataError, match="history 1 names 'nowhere'"):
        recommend_file(model, source, out, k=3)
    assert not out.exists()
    recommend_file(model, source, out, k=3, unknown="skip", overwrite=True)
    found = pl.read_parquet(out)["items"].to_list()
    assert found[:2] == expected(model, [["i00"], ["i01"]], 3, False)
    assert found[2:] == [[], []]
    source = write(tmp_path / "empty.parquet", [["i00"], []])
    with pytest.raises(DataError, match="history 1 is empty"):
        recommend_file(model, source, tmp_path / "e.parquet", k=3)


def test_no_history_at_all(model: Path, tmp_path: Path) -> None:
    recommend_file(model, write(tmp_path / "h.parquet", []), tmp_path / "r.parquet", k=3)
    found = pl.read_parquet(tmp_path / "r.parquet")
    assert (found.height, found.columns) == (0, ["user_id", "items", "scores"])


def test_wrong_requests(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "h.parquet", histories(3))
    out = tmp_path / "r.parquet"
    for options in (
        {"k": 0},
        {"batch_size": 0},
        {"shard_rows": -1},
        {"engine": "spark"},
        {"unknown": "guess"},
    ):
        with pytest.raises(ConfigError):
            recommend_file(model, source, out, **options)
    with pytest.raises(ConfigError, match=f"1 to {ITEMS}"):
        recommend_file(model, source, out, k=ITEMS + 1)
    with pytest.raises(DataError, match="does not exist"):
        recommend_file(model, tmp_path / "nothing.parquet", out)
    (tmp_path / "bad.parquet").write_bytes(source.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        recommend_file(model, tmp_path / "bad.parquet", out)
    for column in ({"history": [1, 2]}, {"past": [["i00"]]}, {"history": [[0.5]]}):
        pl.DataFrame(column).write_parquet(tmp_path / "other.parquet")
        with pytest.raises(DataError, match="a list of raw ids"):
            recommend_file(model, tmp_path / "other.parquet", out)
    pl.DataFrame({"history": [["i00"]], "items": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="'items'"):
        recommend_file(model, tmp_path / "other.parquet", out)
    out.write_text("mine")
    with pytest.raises(RunError, match="already exists"):
        recommend_file(model, source, out, k=3)
    assert out.read_text() == "mine"


def test_a_stopped_job_goes_on_and_another_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = histories(25)
    source, out = write(tmp_path / "h.parquet", lines), tmp_path / "r.parquet"
    whole = batch_module.Worker.run

    def stops(self: batch_module.Worker, number: int) -> int:
        if number == 3:
            raise KeyboardInterrupt
        return whole(self, number)

    monkeypatch.setattr(batch_module.Worker, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend_file(model, source, out, k=4, shard_rows=5)
    monkeypatch.setattr(batch_module.Worker, "run", whole)
    assert not out.exists()
    with pytest.raises(RunError, match="another job"):
        recommend_file(model, source, out, k=5, shard_rows=5)
    write(tmp_path / "h2.parquet", histories(25, seed=1))
    with pytest.raises(RunError, match="another job"):
        recommend_file(model, tmp_path / "h2.parquet", out, k=4, shard_rows=5)
    report = recommend_file(model, source, out, k=4, shard_rows=5)
    assert (report.answered, report.resumed_shards) == (10, 3)
    assert pl.read_parquet(out)["items"].to_list() == expected(model, lines, 4, False)


_KILLED = """
import sys, time
from recdistill.export import recommend_file
from recdistill.export.batch import Worker
whole = Worker.run
def slow(self, number):
    time.sleep(0.05)
    return whole(self, number)
Worker.run = slow
recommend_file(*sys.argv[1:4], k=4, shard_rows=2)
"""


def test_a_killed_process_leaves_nothing_half_written(model: Path, tmp_path: Path) -> None:
    lines = histories(60)
    source, out = write(tmp_path / "h.parquet", lines), tmp_path / "r.parquet"
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(model), str(source), str(out)])
    parts = tmp_path / "r.parquet.parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("0*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    shards = sorted(parts.glob("0*.parquet"))
    assert 3 <= len(shards) < 30
    assert all(pl.read_parquet(path).height == 2 for path in shards)
    report = recommend_file(model, source, out, k=4, shard_rows=2)
    assert report.resumed_shards == len(shards)
    assert pl.read_parquet(out)["items"].to_list() == expected(model, lines, 4, False)
    assert not parts.exists()


def test_killed_while_the_shards_are_deleted_the_file_is_whole_and_nothing_is_in_the_way(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = histories(11)
    source, out = write(tmp_path / "h.parquet", lines), tmp_path / "r.parquet"
    with monkeypatch.context() as stopped:

        def killed(path: Path) -> None:
            next(Path(path).iterdir()).unlink()
            raise KeyboardInterrupt

        stopped.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            recommend_file(model, source, out, k=4, shard_rows=2)
    assert pl.read_parquet(out)["items"].to_list() == expected(model, lines, 4, False)
    recommend_file(model, source, out, k=3, shard_rows=2, overwrite=True)
    assert pl.read_parquet(out)["items"].to_list() == expected(model, lines, 3, False)


def test_two_workers_of_a_cluster_answer_the_same(model: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    lines = histories(23)
    source = write(tmp_path / "h.parquet", lines)
    out = tmp_path / "r.parquet"
    report = recommend_file(model, source, out, k=4, shard_rows=4, engine="ray", workers=2)
    assert (report.rows, report.answered) == (23, 23)
    assert pl.read_parquet(out)["items"].to_list() == expected(model, lines, 4, False)
    write(source, [["i00"], ["nowhere"]])
    with pytest.raises(RunError, match=r"shard 1 .*'nowhere'"):
        recommend_file(model, source, out, k=4, shard_rows=1, engine="ray", workers=2, overwrite=True)
    assert (tmp_path / "r.parquet.parts" / "00000000.parquet").is_file()
    assert ray.is_initialized()  # it is left as it was found
    ray.shutdown()
