"""Walks from the command line: who writes them, who learns from them, and what is said where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import call, fails

TINY = ["train.epochs=1", "train.batch_size=64", "student.embedding_size=16"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    made = ["--users", 150, "--items", 80, "--cold-share", 0.1, "--split", "global-time"]
    call("data", "simulated", *made, "--out", root / "d")
    call("teach", "graph", "--dataset", root / "d", "--out", root / "k", "--no-tune", "--top-k", 40)
    call("teach", "graph", "--dataset", root / "d", "--out", root / "bare", "--no-tune", "--walks", 0)
    return root


def test_the_graph_writes_one_from_each_item_of_training(shop: Path) -> None:
    facts = json.loads((shop / "k" / "walks" / "manifest.json").read_text())
    assert 60 <= facts["walks"] < 80
    assert facts["steps"] == 5
    shown = call("knowledge", "show", shop / "k", "--dataset", shop / "d")
    assert f"{facts['walks']} walks of 5 steps" in shown
    assert not (shop / "bare" / "walks").exists()
    assert "walks" not in call("knowledge", "show", shop / "bare")


def test_the_preset_learns_from_them_and_strategies_of_papers_do_not(shop: Path) -> None:
    common = ["--dataset", shop / "d", "--knowledge", shop / "k"]
    call("distill", "--recipe", "best", *common, "--out", shop / "best", *TINY)
    assert "walks: true" in (shop / "best" / "config.yaml").read_text()
    call("distill", "--strategy", "rrd", *common, "--out", shop / "rrd", *TINY)
    assert "walks: false" in (shop / "rrd" / "config.yaml").read_text()
    call("distill", "--strategy", "none", *common, "--out", shop / "none", *TINY, "train.walks=true")
    said = call("compare", shop / "best", shop / "rrd", shop / "none")
    assert "NDCG@20" in said


@pytest.mark.parametrize("who", ["embedding", "blend", "student"])
def test_other_teachers_write_them_too(shop: Path, who: str) -> None:
    out = shop / f"k-{who}"
    words: list[object] = ["--dataset", shop / "d", "--out", out, "--walks", 30, "--walk-steps", 2]
    if who == "student":
        call("distill", "--strategy", "none", "--dataset", shop / "d", "--out", shop / "large", *TINY)
        said = call("teach", "student", shop / "large", *words)
    else:
        fast = ["--epochs", 1] if who == "embedding" else []
        said = call("teach", who, *words, "--rank", 16, *fast)
    assert "30 walks of 2 steps" in said
    call(
        "distill", "--strategy", "rrd", "--dataset", shop / "d", "--knowledge", out, "--out", shop / f"r-{who}",
        *TINY, "train.walks=true", "rrd.k=10",
    )  # fmt: skip


def test_mistakes_say_what_is_wrong(shop: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    common = ["--dataset", shop / "d", "--out", tmp_path / "r", *TINY]
    best = ["distill", "--recipe", "best", *common]
    assert "train.walks=false" in fails(capsys, monkeypatch, *best, "--knowledge", shop / "bare")
    alone = fails(capsys, monkeypatch, "distill", "--strategy", "none", *common, "train.walks=true")
    assert "there is no teacher" in alone
    teach = ["teach", "graph", "--dataset", shop / "d", "--no-tune", "--out", tmp_path / "k"]
    assert "steps" in fails(capsys, monkeypatch, *teach, "--walk-steps", 500)
    assert not (tmp_path / "k").exists()
    call("distill", "--recipe", "best", *common, "--knowledge", shop / "bare", "train.walks=false")


def test_the_report_leaves_out_what_a_teacher_without_walks_cannot_serve(shop: Path, tmp_path: Path) -> None:
    words = [
        "reproduce",
        "best",
        "--dataset",
        shop / "d",
        "--out",
        tmp_path / "rep",
        "--no-tune",
        "--dry-run",
    ]
    assert "w/o walks" in call(*words, "--knowledge", shop / "k")
    bare = call(*words, "--knowledge", shop / "bare")
    assert "the knowledge lacks walks" in " ".join(bare.split())
    assert "w/o walks" in bare
