"""``recdistill refit`` on a shop of toy size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command import call, fails
from recdistill.config import read_config, run, write_config
from recdistill.data import SequenceDataset
from recdistill.export import Recommender


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    made = ["--users", 300, "--items", 90, "--cold-share", 0.2, "--split", "global-time"]
    call("data", "simulated", *made, "--out", root / "d")
    call("teach", "graph", "--dataset", root / "d", "--out", root / "k", "--no-tune")
    call(
        "distill", "--recipe", "best", "--dataset", root / "d", "--knowledge", root / "k", "--out", root / "r",
        "--seeds", 2, "student.embedding_size=16", "train.epochs=6", "train.learning_rate=0.01",
    )  # fmt: skip
    return root


def best_epoch(folder: Path) -> int:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return max(range(len(lines)), key=lambda number: lines[number]["valid"]["ndcg@20"])


def test_a_refit_keeps_what_validation_picked(shop: Path) -> None:
    said = call("refit", shop / "r", "--out", shop / "f")
    assert f"next: recdistill compare {shop / 'r'} {shop / 'f'}" in said
    for seed in ("seed-0", "seed-1"):
        old, new = (read_config(shop / one / seed / "config.yaml") for one in ("r", "f"))
        before, after = (Recommender.load(shop / one / seed).spec for one in ("r", "f"))
        assert new.train.epochs == best_epoch(shop / "r" / seed) + 1
        assert new.seed == old.seed
        assert new.strategies == old.strategies
        assert after.get("repeats", True) == before.get("repeats", True)
        assert after["cold_stretch"] == before["cold_stretch"] == new.refit.cold_stretch
        assert after["learned"] == ["valid"]
    table = call("compare", shop / "r", shop / "f", shop / "k")
    assert "refit on valid" in table
    assert "epoch" not in call("refit", shop / "r", "--out", shop / "f")  # it is there already


def test_counts_alone_are_made_anew(shop: Path, capsys: Any, monkeypatch: Any) -> None:
    words = ["student.embedding_size=16", "train.epochs=6", "train.learning_rate=0.01", "train.prior=pick"]
    call("distill", "--dataset", shop / "d", "--strategy", "none", "--out", shop / "p", *words)
    picked = Recommender.load(shop / "p")
    often, lately = picked.spec["prior"]
    assert (often, lately) != (0, 0)
    said = call("refit", shop / "p", "--out", shop / "c", "--counts-only")
    assert "epoch" not in said
    made = Recommender.load(shop / "c")
    assert (made.spec["prior"], made.learned) == ([often, lately], ("valid",))
    data = SequenceDataset.load(shop / "d")
    rows = np.flatnonzero(np.isin(data.row_splits, [0, 1]))  # training and validation
    items, when = data.targets(rows), data.timestamps[data.row_events[rows]]
    newest = items[when >= np.quantile(when, 0.98)]
    counts = [np.log(1 + np.bincount(one, minlength=data.item_count)) for one in (items, newest)]
    expected = often * counts[0] + lately * counts[1]
    np.testing.assert_allclose(made.model.item_bias.detach(), expected, atol=1e-4)
    for name, value in picked.model.state_dict().items():
        if name != "item_bias":
            assert torch.equal(made.model.state_dict()[name], value), name
    assert "counts of valid" in call("compare", shop / "p", shop / "c")
    call("refit", shop / "p", "--out", shop / "c", "--counts-only")  # it is there already
    call("refit", shop / "p", "--out", shop / "trained")
    trained = Recommender.load(shop / "trained")
    assert (trained.spec["prior"], trained.learned) == ([often, lately], ("valid",))
    np.testing.assert_allclose(trained.model.item_bias.detach(), expected, atol=1e-4)
    assert "train.prior=pick" in fails(
        capsys, monkeypatch, "refit", shop / "r", "--out", shop / "x", "--counts-only"
    )
    assert not (shop / "x").exists()


def test_all_rows_and_then_an_export(shop: Path) -> None:
    said = call("refit", shop / "r" / "seed-0", "--out", shop / "all", "--rows", "all")
    assert f"next: recdistill export {shop / 'all'}" in said
    call("export", shop / "all", "--out", shop / "rec")
    assert Recommender.load(shop / "rec").learned == ("valid", "test")


def test_wrong_input_gets_a_message_that_helps(
    shop: Path, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    call("refit", shop / "r" / "seed-1", "--out", shop / "one")
    assert "last training itself" in fails(
        capsys, monkeypatch, "refit", shop / "one", "--out", tmp_path / "x"
    )
    assert "no run folder" in fails(capsys, monkeypatch, "refit", shop / "d", "--out", tmp_path / "x")
    asked = fails(capsys, monkeypatch, "evaluate", shop / "one", "--split", "valid")
    assert "trained on the valid rows as well" in asked
    assert "--split test" in asked


def test_a_run_that_was_stopped_is_finished_first(
    shop: Path, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    class Stop:
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

        def on_epoch(self, record: dict[str, Any]) -> None:
            pass

    folder = tmp_path / "half"
    folder.mkdir()
    config = read_config(shop / "r" / "seed-0" / "config.yaml")
    write_config(config, folder / "config.yaml")
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, reporter=Stop())
    said = fails(capsys, monkeypatch, "refit", folder, "--out", tmp_path / "x")
    assert "stopped before its end" in said
    assert not (tmp_path / "x").exists()


def test_the_teacher_counts_the_same_rows(shop: Path, capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    given = ["--dataset", shop / "d"]
    said = call("teach", "again", shop / "k", *given, "--out", shop / "k2")
    assert f"refit r/ --rows valid --knowledge {shop / 'k2'}" in said
    one = shop / "r" / "seed-0"
    call("refit", one, "--knowledge", shop / "k2", "--out", shop / "both")
    call("refit", one, "--out", shop / "alone")
    both, alone = (Recommender.load(shop / name) for name in ("both", "alone"))
    assert both.learned == alone.learned == ("valid",)
    assert any(
        not torch.equal(value, alone.model.state_dict()[name])
        for name, value in both.model.state_dict().items()
    )
    out = tmp_path / "table"
    call("compare", one, shop / "both", shop / "k", shop / "k2", "--out", out)
    table = (out / "report.md").read_text() if (out / "report.md").exists() else ""
    table = table or "".join(path.read_text() for path in out.glob("*.md"))
    lines = [
        f"{name}{more} |"
        for name in ("graph (teacher)", "popularity", "graph + text")
        for more in ("", ", refit on valid")
    ]
    assert all(line in table for line in lines), table
    plain = call("compare", one, shop / "k")
    assert "refit on" not in plain
    rows = SequenceDataset.load(shop / "d")
    counted = np.bincount(rows.targets(np.flatnonzero(np.isin(rows.row_splits, [0, 1]))))
    asked = rows.rows("test")
    targets = rows.targets(asked)
    ranks = (counted[None] >= counted[targets][:, None]).sum(1) - 1  # pessimistic, all items compete
    hit = f"{(ranks < 20).mean():.4f}"
    line = next(line for line in table.splitlines() if "popularity, refit on valid" in line)
    assert hit in line


def test_a_teacher_that_has_seen_the_answers_judges_nobody(
    shop: Path, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    given, wrong = ["--dataset", shop / "d"], (capsys, monkeypatch)
    call("teach", "again", shop / "k", *given, "--out", shop / "k3")
    said = fails(
        *wrong, "distill", *given, "--knowledge", shop / "k3", "--strategy", "rrd", "--out", tmp_path / "x"
    )
    assert "learned from the valid rows" in said
    assert "recdistill refit" in said
    for words in (["compare", shop / "k3"], ["knowledge", "audit", shop / "k3"]):
        said = fails(*wrong, *words, *given, "--split", "valid")
        assert "--split test" in said, words
    assert "counted the valid rows already" in fails(
        *wrong, "teach", "again", shop / "k3", *given, "--out", tmp_path / "x"
    )
    call("distill", *given, "--strategy", "none", "--out", tmp_path / "p", "train.epochs=1")
    said = fails(*wrong, "refit", tmp_path / "p", "--knowledge", shop / "k3", "--out", tmp_path / "x")
    assert "had no teacher" in said
    assert not (tmp_path / "x").exists()
    call("teach", "again", shop / "k", *given, "--rows", "all", "--out", shop / "k4")
    assert "learned from all rows" in fails(*wrong, "compare", shop / "k4", *given)
