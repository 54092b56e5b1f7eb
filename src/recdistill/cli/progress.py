"""How training looks on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Draws one bar an epoch with the time left, and one line for each evaluation.

    Parameters
    ----------
    title
        What is trained.
    epochs
        The largest number of epochs.
    """

    def __init__(self, title: str, epochs: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.console = Console()
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.title, self.epochs = title, epochs
        self.task: Any = None

    def __enter__(self) -> TrainingProgress:
        self.console.print(f"[bold]{self.title}[/bold]", highlight=False)
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        if self.task is None:
            self.task = self.progress.add_task("", total=steps)
        text = f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}"
        self.progress.update(self.task, completed=step, description=text)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Print the epoch's line."""
        valid = record.get("valid", {})
        metrics = "  ".join(f"{name} {valid[name]:.4f}" for name in ("hr@20", "ndcg@20") if name in valid)
        asked = f"  valid {metrics}" if metrics else ""
        best = "  [green]best[/green]" if record.get("best") else ""
        line = f"epoch {record['epoch'] + 1:>3}  loss {record['train']['total']:.4f}{asked}"
        self.console.print(f"{line}  {record['seconds']:.1f} s{best}", highlight=False)
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
