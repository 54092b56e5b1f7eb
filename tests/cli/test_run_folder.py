"""What a run's folder holds before, during and after a command that was right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command import call, contents, fails
from recdistill.config import read_config
from shop import ring_dataset

WORDS = ["train.epochs=1", "train.batch_size=20", "student.embedding_size=8"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    ring_dataset().save(tmp_path / "d")
    call("distill", "--dataset", tmp_path / "d", "--out", tmp_path / "r", *WORDS)
    return tmp_path


def test_a_wrong_command_does_not_cost_the_run_that_it_was_to_replace(
    shop: Path, capsys: Any, monkeypatch: Any
) -> None:
    before = contents(shop)
    told = fails(
        capsys, monkeypatch, "distill", "--dataset", shop / "d", "--out", shop / "r", "--overwrite", *WORDS,
        "--knowledge", shop / "nowhere", "--strategy", "rd",
    )  # fmt: skip
    assert "nowhere" in told
    assert contents(shop) == before


def test_overwrite_leaves_the_new_run_alone(shop: Path) -> None:
    call("distill", "--dataset", shop / "d", "--out", shop / "r", "--overwrite", *WORDS, "train.epochs=2")
    assert read_config(shop / "r" / "config.yaml").train.epochs == 2
    assert len((shop / "r" / "metrics.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in shop.iterdir()) == ["d", "r"]


def test_a_link_to_the_old_run_leads_to_the_new_one(shop: Path) -> None:
    (shop / "link").symlink_to(shop / "r")
    call("distill", "--dataset", shop / "d", "--out", shop / "link", "--overwrite", *WORDS, "train.epochs=2")
    assert (shop / "link").is_symlink()
    assert read_config(shop / "r" / "config.yaml").train.epochs == 2


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("what", ["d", "file", "folder"])
def test_what_is_no_run_stays_as_it_is(
    shop: Path, what: str, overwrite: list[str], capsys: Any, monkeypatch: Any
) -> None:
    (shop / "file").write_text("mine")
    (shop / "folder").mkdir()
    (shop / "folder" / "notes.txt").write_text("mine")
    before = contents(shop)
    told = fails(
        capsys, monkeypatch, "distill", "--dataset", shop / "d", "--out", shop / what, *WORDS, *overwrite
    )
    assert str(shop / what) in told
    assert contents(shop) == before
