"""A folder that is replaced is at every moment the whole old one or the whole new one."""

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recdistill import runs
from recdistill.errors import RunError
from recdistill.runs import (
    MANIFEST,
    atomic_folder,
    read_json,
    remove_folder,
    replaced,
    write_manifest,
)

FILES = 20


def put(path: Path, number: int) -> None:
    """Write or replace a folder of many files, all of which hold the same number."""
    with atomic_folder(path, overwrite=True) as out:
        for name in range(FILES):
            (out / f"{name}.txt").write_text(str(number))
        write_manifest(out, "test", {"number": number})


def number_of(path: Path) -> int:
    """Return the number that the folder holds, after checking that it is whole."""
    number = read_json(path / MANIFEST)["number"]
    assert {(path / f"{name}.txt").read_text() for name in range(FILES)} == {str(number)}
    return int(number)


@pytest.fixture(params=["exchange", "renames", "emptied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to replace: the system's exchange, renames where there is none, and where even these are refused."""
    if request.param != "exchange":
        monkeypatch.setattr(runs, "_exchanged", lambda one, other: False)
    if request.param == "emptied":
        rename = Path.replace

        def refuses(path: Path, target: Path) -> Path:
            if not path.name.startswith("."):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            return rename(path, target)

        monkeypatch.setattr(Path, "replace", refuses)
    return request.param


def test_a_replaced_folder_is_the_new_one_and_nothing_is_left_beside_it(tmp_path: Path, way: str) -> None:
    for number in range(3):
        put(tmp_path / "made", number)
        assert number_of(tmp_path / "made") == number
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_error_leaves_the_old_folder(tmp_path: Path, way: str) -> None:
    put(tmp_path / "made", 0)
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "made", overwrite=True) as out:
        out.joinpath("half").write_bytes(out.read_bytes())
    assert number_of(tmp_path / "made") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_new_folder_is_whole_before_the_old_one_is_deleted(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "emptied":
        pytest.skip("it is not: there the old one has to go first")
    put(tmp_path / "made", 0)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        put(tmp_path / "made", 1)
    assert number_of(tmp_path / "made") == 1


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, way: str) -> None:
    put(tmp_path / "disk" / "made", 0)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "made")
    put(tmp_path / "link", 1)
    assert (tmp_path / "link").is_symlink()
    assert number_of(tmp_path / "disk" / "made") == 1
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["made"]


def test_a_removed_folder_is_gone(tmp_path: Path, way: str) -> None:
    put(tmp_path / "made", 0)
    remove_folder(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
    remove_folder(tmp_path / "made")  # there is none


def test_a_removed_folder_goes_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "made", 0)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_folder(tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_an_empty_folder_is_taken_and_a_foreign_one_is_not(tmp_path: Path, way: str) -> None:
    (tmp_path / "made").mkdir()
    put(tmp_path / "made", 0)
    assert number_of(tmp_path / "made") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not written by recdistill"):
        put(tmp_path / "mine", 0)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.skipif(sys.platform != "linux", reason="the exchange in one step is Linux's")
def test_killed_at_any_moment_one_whole_folder_is_there(tmp_path: Path) -> None:
    path, draw = tmp_path / "made", random.Random(0)
    put(path, -1)
    seen = {-1}
    for _ in range(8):
        process = subprocess.Popen([sys.executable, __file__, str(path)])
        try:
            first, end = number_of(path), time.monotonic() + 60
            while (
                read_json(path / MANIFEST)["number"] == first
            ):  # a reader finds a folder at every moment, too
                assert time.monotonic() < end
            time.sleep(0.05 * draw.random())
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        seen.add(number_of(path))
    assert len(seen) > 2


if __name__ == "__main__":  # the process that is killed
    for count in itertools.count():
        put(Path(sys.argv[1]), count)


@pytest.mark.parametrize("done", ["nothing", "marks", "work"])
@pytest.mark.parametrize("ending", [None, RunError, KeyboardInterrupt])
def test_what_is_replaced_comes_back_if_no_work_was_done(
    tmp_path: Path, done: str, ending: type[BaseException] | None
) -> None:
    put(tmp_path / "r", 1)
    with contextlib.suppress(RunError, KeyboardInterrupt), replaced(tmp_path / "r", overwrite=True):
        assert not (tmp_path / "r").exists()
        if done == "marks":
            write_manifest(tmp_path / "r" / "shards", "shards", {})
            (tmp_path / "r" / "config.yaml").write_text("")
        elif done == "work":
            put(tmp_path / "r", 2)
        if ending is not None:
            raise ending
    assert number_of(tmp_path / "r") == (2 if done == "work" else 1)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_without_overwrite_nothing_is_set_aside(tmp_path: Path) -> None:
    put(tmp_path / "r", 1)
    with replaced(tmp_path / "r", overwrite=False):
        assert number_of(tmp_path / "r") == 1
    with replaced(tmp_path / "new", overwrite=True):
        (tmp_path / "new").mkdir()
    assert (tmp_path / "new").is_dir()
