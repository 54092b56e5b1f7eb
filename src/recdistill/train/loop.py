"""The training loop: one for CPU, GPU and ``torchrun``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor

from recdistill.errors import TrainingError
from recdistill.runs import atomic_file, write_json
from recdistill.train.batches import BatchLoader
from recdistill.train.checkpoints import load_checkpoint, save_checkpoint
from recdistill.train.objective import Objective
from recdistill.train.seed import seed_everything
from recdistill.train.stopping import EarlyStopping
from recdistill.types import Batch

T = TypeVar("T")
Metrics = dict[str, float]


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes
    ----------
    epochs
        At most this many passes over the training rows.
    learning_rate, weight_decay, optimizer, warmup_steps
        Adam with L2 (``adam``, the paper's) or decoupled weight decay (``adamw``); linear warm-up.
    patience
        Evaluations on validation without a better `metric` before training stops.
    evaluate_every
        Epochs between evaluations.
    metric
        Validation metric that picks the best epoch.
    repeats
        Whether the student may recommend items of the history where these compete: ``keep``, ``drop``, or
        ``pick``: what validation likes better, anew at each evaluation.
    gradient_clip
        Largest gradient norm, or 0 for none.
    precision
        ``float32``, or ``bf16`` mixed precision.
    checkpoint_minutes
        Time between checkpoints inside an epoch; one is written after every epoch as well.
    seed
        Seed of parameters' dropout, batches and negatives.
    """

    epochs: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimizer: Literal["adam", "adamw"] = "adam"
    warmup_steps: int = 0
    patience: int = 10
    evaluate_every: int = 1
    metric: str = "ndcg@20"
    repeats: Literal["keep", "drop", "pick"] = "keep"
    gradient_clip: float = 0.0
    precision: Literal["float32", "bf16"] = "float32"
    checkpoint_minutes: float = 10.0
    seed: int = 0


class Reporter(Protocol):
    """Hears how training goes; the command line draws it."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Called after every step."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Called with every line of ``metrics.jsonl``."""


class Silent:
    """A reporter that says nothing."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Say nothing."""


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False


class Trainer:
    """Trains an objective and keeps the best epoch on validation.

    Parameters
    ----------
    objective
        Student, loss and strategies.
    loader
        Training batches.
    validate
        Returns the validation metrics of the objective's model, in evaluation mode. None: no row is left to
        validate on, and the last epoch is kept.
    keep
        Saves the objective's model; called whenever validation is better than ever.
    options
        How to train.
    folder
        Run folder for ``metrics.jsonl`` and ``checkpoints/``; a run that was stopped goes on from there.
    """

    def __init__(
        self,
        objective: Objective,
        loader: BatchLoader,
        validate: Callable[[], Metrics] | None,
        keep: Callable[[], None],
        options: TrainOptions,
        folder: Path,
        *,
        accelerator: Accelerator | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator()
        self._mixed = options.precision == "bf16"
        self.objective, self.loader, self.options, self.folder = objective, loader, options, folder
        self.validate, self.keep, self.reporter = validate, keep, reporter or Silent()
        self.optimizer = make_optimizer(
            objective, options, fused=self.accelerator.device.type in ("cpu", "cuda")
        )
        self.module, self.optimizer = self.accelerator.prepare(objective, self.optimizer)
        self.stopping = EarlyStopping(options.patience)
        self.progress = _Progress()
        self._saved_at = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        """Where the training state is kept."""
        return self.folder / "checkpoints" / "last.safetensors"

    def fit(self) -> EarlyStopping:
        """Train until the last epoch or until patience is used up; return which epoch was best.

        Raises
        ------
        TrainingError
            The loss is not finite. The state and the row ids of the batch are kept under ``failure/``.
        """
        seed_everything(self.options.seed)
        if self.checkpoint.is_file():
            self._resume()
        while not self.progress.finished:
            self._epoch()
        return self.stopping

    def _epoch(self) -> None:
        state, started = self.progress, time.monotonic()
        self.module.train()
        self.objective.on_epoch(state.epoch)
        try:
            for batch in self.loader.epoch(state.epoch, skip=state.step):
                self._step(to_device(batch, self.accelerator.device))
                if time.monotonic() - self._saved_at > 60 * self.options.checkpoint_minutes:
                    self._save()
        except KeyboardInterrupt:
            self._save()
            raise
        state.seconds += time.monotonic() - started
        self._finish_epoch()

    def _step(self, batch: Batch) -> None:
        state = self.progress
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self._mixed):
            total, terms = self.module(batch)
        values = torch.stack([total.detach(), *(term.detach() for term in terms)]).float().tolist()
        if not math.isfinite(values[0]):
            self._fail(batch, values[0])
        self.accelerator.backward(total * self._share(batch))
        if self.options.gradient_clip:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.options.gradient_clip)
        self._warm_up()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.sums = [a + b for a, b in zip(state.sums or [0.0] * len(values), values, strict=True)]
        state.step += 1
        self.reporter.on_step(state.epoch, state.step, self.loader.steps, values[0])

    def _share(self, batch: Batch) -> float:
        """Processes average their gradients; weigh each by its rows, so that N processes equal one."""
        if self.accelerator.num_processes == 1:
            return 1.0
        rows = torch.tensor(float(len(batch.targets)), device=self.accelerator.device)
        return float(rows / self.accelerator.reduce(rows, "mean"))

    def _warm_up(self) -> None:
        if self.options.warmup_steps:
            done = self.progress.epoch * self.loader.steps + self.progress.step + 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.options.learning_rate * min(1.0, done / self.options.warmup_steps)

    def _finish_epoch(self) -> None:
        state = self.progress
        terms = ["total", *self.objective.names]
        means = {name: value / state.step for name, value in zip(terms, state.sums, strict=True)}
        record: dict[str, Any] = {"epoch": state.epoch, "train": means, "seconds": round(state.seconds, 3)}
        last = state.epoch + 1 >= self.options.epochs
        if self.validate is None:
            record["best"] = last
        elif last or (state.epoch + 1) % self.options.evaluate_every == 0:
            self.objective.eval()
            record["valid"] = self.validate()
            value = record["valid"][self.options.metric]
            record["best"] = self.stopping.update(value, state.epoch)
        if record.get("best") and self.accelerator.is_main_process:
            self.keep()
        self._log(record)
        self.progress = _Progress(epoch=state.epoch + 1, finished=last or self.stopping.stop)
        self._save()

    def _log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self.reporter.on_epoch(record)

    def _save(self, path: Path | None = None) -> None:
        self._saved_at = time.monotonic()
        if self.accelerator.is_main_process:
            progress = {"progress": vars(self.progress), "stopping": vars(self.stopping)}
            save_checkpoint(path or self.checkpoint, self.objective, self.optimizer, progress)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        saved = load_checkpoint(self.checkpoint, self.objective, self.optimizer)
        self.progress = _Progress(**saved["progress"])
        self.stopping = EarlyStopping(**saved["stopping"])
        if not self.accelerator.is_main_process:
            return
        path = self.folder / "metrics.jsonl"  # drop the lines of epochs that will be run again
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        with atomic_file(path) as temporary:
            kept = [line for line in lines if _epoch_of(line) < self.progress.epoch]
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def _fail(self, batch: Batch, value: float) -> None:
        failure = self.folder / "failure"
        rows = batch.row_ids.tolist()
        where = {"epoch": self.progress.epoch, "step": self.progress.step}
        write_json(failure / "rows.json", {**where, "loss": str(value), "row_ids": rows})
        self._save(failure / "last.safetensors")
        raise TrainingError(
            f"the loss became {value} in epoch {where['epoch']}, step {where['step']}. The state and the row ids "
            f"of the batch are in {failure}. Try a smaller train.learning_rate or train.gradient_clip=1."
        )


def make_accelerator() -> Accelerator:
    """Return an accelerator for this machine: CUDA, MPS or CPU, one process or many.

    Precision is the loop's own matter: accelerate keeps one precision for a whole process.
    """
    return Accelerator(mixed_precision="no")


def make_optimizer(objective: Objective, options: TrainOptions, *, fused: bool) -> torch.optim.Optimizer:
    """Return Adam or AdamW over the parameters that take a gradient; one-dimensional ones do not decay in AdamW."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if options.optimizer == "adam":  # the paper's: L2 on everything
        return torch.optim.Adam(
            parameters, lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused
        )
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98), fused=fused)


def to_device(value: T, device: torch.device) -> T:
    """Return a batch, or knowledge rows, with its tensors on `device`."""
    if device.type == "cpu":
        return value
    moved: dict[str, Any] = {}
    for item in fields(value):  # type: ignore[arg-type]
        part = getattr(value, item.name)
        if isinstance(part, Tensor):
            moved[item.name] = part.to(device, non_blocking=True)
        elif part is not None:
            moved[item.name] = to_device(part, device)
    return replace(value, **moved)  # type: ignore[type-var]


def _epoch_of(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (json.JSONDecodeError, KeyError, TypeError):  # a line that a killed process left unfinished
        return math.inf
