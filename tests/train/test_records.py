"""What is read from a run's epochs: which was kept, and whether validation or the number of epochs ended it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recdistill.train.records import best_epoch, epoch_records, still_rising


def write(folder: Path, best: list[bool], tail: str = "") -> None:
    lines = [json.dumps({"epoch": number, "best": one}) + "\n" for number, one in enumerate(best)]
    (folder / "metrics.jsonl").write_text("".join(lines) + tail)


def test_the_last_of_the_best_epochs_was_kept(tmp_path: Path) -> None:
    assert best_epoch(tmp_path) is None
    write(tmp_path, [True, False, True, False])
    assert best_epoch(tmp_path) == 2
    write(tmp_path, [False, False])
    assert best_epoch(tmp_path) is None


def test_rounds_of_mutual_teaching_are_no_epochs(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"round": 1, "best": True}) + "\n")
    assert best_epoch(tmp_path) is None


def test_a_line_that_was_cut_ends_the_record(tmp_path: Path) -> None:
    write(tmp_path, [True, False], tail='{"epoch": 2, "be')
    assert [record["epoch"] for record in epoch_records(tmp_path)] == [0, 1]


@pytest.mark.parametrize(
    ("best", "allowed", "rising"),
    [
        (99, 100, True),
        (90, 100, True),
        (89, 100, False),
        (17, 100, False),
        (0, 1, True),
        (8, 10, False),
        (9, 10, True),
    ],
)
def test_the_last_tenth_is_too_near_the_end(best: int, allowed: int, rising: bool) -> None:
    assert still_rising(best, allowed) is rising


def test_no_best_epoch_says_nothing() -> None:
    assert not still_rising(None, 5)
