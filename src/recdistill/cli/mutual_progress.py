"""How mutual teaching looks on a terminal."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class MutualProgress:
    """One line a phase, with a bar while it runs, and one line for what a round reached on validation.

    Parameters
    ----------
    title
        What is trained.
    """

    def __init__(self, title: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.console = Console()
        self.bars = Progress(*columns, console=self.console, transient=True)
        self.title = title
        self.task: Any = None

    def __enter__(self) -> MutualProgress:
        self.console.print(f"[bold]{self.title}[/bold]", highlight=False)
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def on_phase(self, text: str) -> None:
        """Print the phase's name and begin a new bar."""
        self._clear()
        self.console.print(text, highlight=False)

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the student's bar."""
        self._show(f"student: epoch {epoch + 1}, loss {loss:.3f}", step, steps)

    def on_teacher_step(self, epoch: int, done: int, total: int, loss: float) -> None:
        """Move the language model's bar."""
        self._show(f"language model: epoch {epoch + 1}, loss {loss:.3f}", done, total)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Pass over a student's epoch: the round's line tells what came of it."""

    def on_round(self, record: dict[str, Any]) -> None:
        """Print what a round reached on validation."""
        self._clear()
        self.console.print(f"  round {record['round']} on validation", highlight=False)
        for name, key in (("student", "student"), ("language model", "teacher")):
            found = record.get(key) or {}
            if "hr@20" in found:
                mark = "  [green]best[/green]" if key == "student" and record["best"] else ""
                line = f"    {name:<14}  HR@20 {found['hr@20']:.4f}  NDCG@20 {found['ndcg@20']:.4f}{mark}"
                self.console.print(line, highlight=False)

    def progress(self, text: str, total: int) -> Callable[[int], None]:
        """Return what moves the bar of rows that are answered."""
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            self._show(text, done, total)

        self._clear()
        return advance

    def _show(self, text: str, done: int, total: int) -> None:
        if self.task is None:
            self.task = self.bars.add_task("", total=total)
        self.bars.update(self.task, completed=done, total=total, description=text)

    def _clear(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
