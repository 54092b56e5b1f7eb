"""Two processes of one ``torchrun`` make one run, in one folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recdistill.cli.distill import carry_out
from recdistill.config import resolve
from recdistill.errors import RunError
from recdistill.runs import exclusive
from shop import ring_dataset

WORDS = [
    "sasrec.dropout=0",
    "train.epochs=3",
    "train.batch_size=20",
    "student.embedding_size=16",
    "train.patience=9",
]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def distil(data: Path, out: Path, *words: str, launcher: list[str] | None = None) -> str:
    command = ["-m", "recdistill", "distill", "--dataset", str(data), *WORDS, "--out", str(out), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [sys.executable, *(launcher or []), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["valid"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    ring_dataset().save(tmp_path / "d")
    distil(tmp_path / "d", tmp_path / "one")
    said = distil(tmp_path / "d", tmp_path / "two", launcher=TORCHRUN)
    assert said.count("epoch   3") == said.count("next: recdistill evaluate") == 1
    one = losses(tmp_path / "one")
    distil(tmp_path / "d", tmp_path / "one", "--overwrite", launcher=TORCHRUN)
    for two in (losses(tmp_path / "two"), losses(tmp_path / "one")):
        assert len(two) == len(one) == 3
        for first, second in zip(one, two, strict=True):
            assert all(abs(first[key] - second[key]) < 1e-3 for key in first)
    assert (tmp_path / "two" / "best" / "model.safetensors").is_file()


def test_only_the_first_prepares_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second may come at any moment of the first's work: also when a file of it has no name yet."""
    ring_dataset().save(tmp_path / "d")
    config = resolve({"dataset": str(tmp_path / "d")}, strategy=None, file=None, words=WORDS)
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / ".config.yaml.unfinished").touch()
    trained: list[Path] = []
    monkeypatch.setattr("recdistill.config.run", lambda _, out, **__: trained.append(out))
    monkeypatch.setenv("RANK", "1")
    carry_out(config, folder, overwrite=True)
    assert trained == [folder]
    assert [path.name for path in folder.iterdir()] == [".config.yaml.unfinished"]
    assert capsys.readouterr().out == ""


def test_a_command_that_cannot_be_divided_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        with (
            pytest.raises(RunError, match="reproduce was launched on 2 processes"),
            exclusive(tmp_path / "rep", "reproduce"),
        ):
            pass
    assert not list(tmp_path.iterdir())
