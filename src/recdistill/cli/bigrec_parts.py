"""What the stages of ``recdistill teach bigrec`` show, and the students that they borrow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from recdistill.cli.teaching import Bars
    from recdistill.data.sequences import SequenceDataset
    from recdistill.export import ModelScorer


def tuning_bar(bars: Bars, name: str) -> Callable[[int, int, float], None]:
    """Return what draws the bar of one fine-tuning."""
    task = bars.progress.add_task(f"{name}: fine-tuning", total=None)

    def hear(step: int, steps: int, loss: float) -> None:
        bars.progress.update(
            task, completed=step, total=steps, description=f"{name}: tuning, loss {loss:.3f}"
        )

    return hear


def tuned_line(name: str, folder: Path, rows: int) -> str:
    """Say what a fine-tuning did."""
    from recdistill.runs import read_manifest

    facts = read_manifest(folder, "adapter")
    loss = facts["train_loss"] if facts["valid_loss"] is None else facts["valid_loss"]
    return f"{name}: {facts['method']} fine-tuning on {rows:,} rows, {facts['steps']} steps, loss {loss:.4f} per token"


def student(folder: Path, data: SequenceDataset) -> tuple[ModelScorer, int, str]:
    """Return a trained student's scorer, the history it reads, and its name with a hash of its weights."""
    from recdistill.export import Recommender
    from recdistill.runs import fingerprint, require_fingerprint

    recommender = Recommender.load(folder)
    require_fingerprint(recommender.dataset_fingerprint, data.fingerprint, folder)
    weights = [value.cpu().numpy().tobytes() for value in recommender.model.state_dict().values()]
    return recommender.scorer(), recommender.length, f"{folder.name} {fingerprint(*weights)[:16]}"


def mixed(folder: Path, data: SequenceDataset) -> dict[str, Any]:
    """Return what a constrained search gets of a student: its log-probabilities by row id, and its name."""
    import torch

    scorer, length, name = student(folder, data)

    def log_probs(row_ids: Sequence[int]) -> torch.Tensor:
        with torch.inference_mode():
            rows = data.positions_of(row_ids)
            return scorer(data.histories(rows, length), data.row_ids[rows]).float().log_softmax(1)

    return {"item_log_probs": log_probs, "student": name}
