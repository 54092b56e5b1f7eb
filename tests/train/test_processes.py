import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from shop import ring_dataset

WORDS = [
    "sasrec.dropout=0",
    "train.epochs=3",
    "train.batch_size=20",
    "student.embedding_size=16",
    "train.patience=9",
]


def losses(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["valid"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    ring_dataset().save(tmp_path / "d")
    command = ["-m", "recdistill", "distill", "--dataset", str(tmp_path / "d"), *WORDS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617"]
    for launcher, name in (([], "one"), (torchrun, "two")):
        words = [sys.executable, *launcher, *command, "--out", str(tmp_path / name)]
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(two) == len(one) == 3
    for first, second in zip(one, two, strict=True):
        assert all(abs(first[key] - second[key]) < 1e-3 for key in first)
    assert (tmp_path / "two" / "best" / "model.safetensors").is_file()
