"""``recdistill reproduce`` as a user gives it, and killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from command import call
from recdistill.cli.main import app
from recdistill.errors import ConfigError
from recdistill.knowledge import save_knowledge
from recdistill.teachers import GraphTeacher, rows_to_teach
from shop import ring_dataset


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ring")
    data = ring_dataset(users=40)
    data.save(root / "d")
    answers = GraphTeacher(temperature=0.1).teach(data, rows_to_teach(data, ["train", "valid", "test"]))
    save_knowledge(answers, root / "k", dataset=data)
    return root


def words(shop: Path, out: Path, *more: str) -> list[str]:
    folders = ["--dataset", shop / "d", "--knowledge", shop / "k", "--out", out]
    tiny = ["train.epochs=2", "student.embedding_size=8", "student.length=5", "train.batch_size=32"]
    chosen = ["--students", "sasrec", "--strategies", "rd,dllm2rec", "--seeds", "2"]
    return ["reproduce", "table5", *map(str, folders), *chosen, *tiny, *more]


def results(out: Path) -> dict[str, object]:
    """Return the numbers of a report without times."""
    facts = json.loads((out / "table5" / "report.json").read_text())["students"]["sasrec"]
    tuned = {run["name"]: run["tuned"]["values"] for run in facts["runs"]}
    return {"comparison": facts["comparison"], "tuned": tuned}


def curves(out: Path) -> list[Path]:
    """Return the files of epochs; run folders, whose parts come and go, are not walked through."""
    return sorted(out.glob("runs/*/*/seed-*/metrics.jsonl"))


def trained(out: Path) -> dict[Path, int]:
    return {path.relative_to(out): path.stat().st_mtime_ns for path in curves(out)}


def test_a_table_from_start_to_end(shop: Path, tmp_path: Path) -> None:
    plan = call(*words(shop, tmp_path / "rep", "--budget", "2", "--dry-run"))
    assert "tuning: 2 searches of 2 trials, 0 finished" in plan
    assert "sasrec (paper) + rd: rd.weight in 0.1 .. 1 in steps of 0.1; train.weight_decay in" in plan
    assert not (tmp_path / "rep").exists()
    said = call(*words(shop, tmp_path / "rep", "--budget", "2"))
    assert "[4/4] sasrec (paper), rd, seed 2: finished" in said
    assert "Left out, dllm2rec: the knowledge lacks item_embeddings" in said
    for text in ("graph (teacher)", "HR@20", "p (Holm)", "rd.weight", "torch", "No published figures"):
        assert text in said
    rising = next(line for line in said.splitlines() if "STILL RISING" in line)
    for name in ("none", "rd"):  # two epochs each; the better one of each seed says whether a line is named
        kept = [
            max(
                range(2),
                key=[
                    json.loads(line)["valid"]["ndcg@20"] for line in path.read_text().splitlines()
                ].__getitem__,
            )
            for path in (tmp_path / "rep" / "runs").glob(f"*/{name}-*/seed-*/metrics.jsonl")
        ]
        assert len(kept) == 2
        assert (f" {name}" in rising.partition(":")[2].partition(".")[0]) is (1 in kept)
    before = trained(tmp_path / "rep")
    first = results(tmp_path / "rep")
    again = call(*words(shop, tmp_path / "rep", "--budget", "2"))
    assert "started" not in again
    assert trained(tmp_path / "rep") == before
    assert results(tmp_path / "rep") == first


def test_killed_in_the_middle_it_goes_on_to_the_same_report(shop: Path, tmp_path: Path) -> None:
    arguments = words(shop, tmp_path / "cut", "--no-tune", "train.epochs=40", "train.patience=40")
    command = [sys.executable, "-m", "recdistill", *arguments, "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    cut = tmp_path / "cut"
    try:
        wait_for(lambda: any(path.stat().st_size > 3000 for path in curves(cut)))
        workers = children(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(workers) >= 2
    wait_for(lambda: not any(alive(worker) for worker in workers))  # nobody trains on alone
    finished = {path.parent for path in cut.rglob("outcome.json")}
    begun = {path.parent for path in curves(cut)}
    kept = {path: stamp for path, stamp in trained(cut).items() if cut / path.parent in finished}
    assert begun - finished
    assert not (cut / "table5").exists()

    call(*arguments)
    assert {path: stamp for path, stamp in trained(cut).items() if path in kept} == kept
    call(*words(shop, tmp_path / "whole", "--no-tune", "train.epochs=40", "train.patience=40"))
    assert results(cut) == results(tmp_path / "whole")
    for run in begun:
        epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert epochs == list(range(40))


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the processes below a process (Linux)."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def alive(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    try:
        return path.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_failed_runs_end_in_an_exit_code(shop: Path, tmp_path: Path) -> None:
    arguments = words(shop, tmp_path, "--no-tune", "rd.weight=1.0e+39")
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "sasrec (paper), rd, seed 1: failed, the loss became" in result.output
    assert "FAILED, sasrec (paper), rd, seed 2" in result.output
    assert (tmp_path / "table5" / "report.html").is_file()


def test_mistakes_are_said_before_anything_is_trained(shop: Path, tmp_path: Path) -> None:
    for arguments, error in (
        (["reproduce", "table5", "--dataset", str(shop / "d")], "--dataset and --out are needed"),
        ([*words(shop, tmp_path / "no"), "rd.tempo=1"], "unknown option of strategy rd 'tempo'"),
        (["reproduce", "table77", *words(shop, tmp_path / "no")[2:]], "unknown table 'table77'"),
    ):
        with pytest.raises(ConfigError, match=error):
            call(*arguments)
    assert not (tmp_path / "no").exists()
