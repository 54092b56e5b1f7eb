"""What is kept of every round: a line of ``metrics.jsonl``, and where its models are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recdistill.runs import atomic_file
from recdistill.train.mutual.weights import rank_gap_weights

Ints = npt.NDArray[np.int64]


def round_folders(run: Path) -> list[Path]:
    """Return the folders of a run's rounds, 0 first; each holds ``student/`` and, but for 0, ``teacher/``."""
    found = [path for path in (run / "rounds").glob("*") if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def write_records(folder: Path, records: list[dict[str, Any]], metric: str) -> None:
    """Mark which student is the best so far, the first of equals, and write ``metrics.jsonl``."""
    best = max(records, key=lambda record: float(record["student"][metric]))
    for record in records:
        record["best"] = record is best
    with atomic_file(folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in records), encoding="utf-8")


def epochs_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a round's line says of the language model's epochs."""
    best = result["best"]
    return {"epochs": len(result["history"]), "best_epoch": best["epoch"], "loss": best["loss"]}


def weights_seen(student: Ints, teacher: Ints) -> dict[str, float]:
    """Return how the student's weights lie where both models answer the training rows as they are: a check of w.

    Parameters
    ----------
    student, teacher
        ``(N,)`` 1-based ranks.
    """
    weights = rank_gap_weights(torch.from_numpy(student), torch.from_numpy(teacher))
    shares = {"zero": weights == 0, "one": weights == 1, "two": weights == 2}
    return {
        "student_mean": float(weights.mean()),
        **{f"student_{name}": float(share.float().mean()) for name, share in shares.items()},
    }
