"""Who hears how mutual teaching goes; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from recdistill.train.loop import Reporter, Silent


class Listener(Reporter, Protocol):
    """A reporter of the student's phases that also hears of the language model's, and of rounds."""

    def on_phase(self, text: str) -> None:
        """Called when a phase begins, or is passed over because it is done."""

    def on_teacher_step(self, epoch: int, done: int, total: int, loss: float) -> None:
        """Called after every step of the language model: rows done and rows of an epoch."""

    def on_round(self, record: dict[str, Any]) -> None:
        """Called with every line of the run's ``metrics.jsonl``."""

    def progress(self, text: str, total: int) -> Callable[[int], None]:
        """Return what is called with the rows of each chunk that was answered."""
        ...


class Quiet(Silent):
    """A listener that says nothing."""

    def on_phase(self, text: str) -> None:
        """Say nothing."""

    def on_teacher_step(self, epoch: int, done: int, total: int, loss: float) -> None:
        """Say nothing."""

    def on_round(self, record: dict[str, Any]) -> None:
        """Say nothing."""

    def progress(self, text: str, total: int) -> Callable[[int], None]:
        """Say nothing."""
        return lambda done: None
