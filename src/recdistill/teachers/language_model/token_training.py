"""The one training loop of language models: AdamW, a schedule, gradient accumulation, validation, resume.

Every random draw belongs to a step's number, not to what came before: the order of examples to the epoch, dropout to
the step. A training that was killed and started again therefore takes the same steps, and ends with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError, TrainingError, unknown_name
from recdistill.teachers.language_model.token_loss import TokenBatch, TokenLoss
from recdistill.teachers.training_state import read_parameters, read_state, write_parameters, write_state

Ints = npt.NDArray[np.int64]
Precision = Literal["float32", "bf16"]
PRECISIONS: Final = ("float32", "bf16")
DECAYS: Final = ("cosine", "linear")
STATE, BEST = "state.safetensors", "best.safetensors"
#: What stands for "more than nothing" in checks of options.
_ABOVE_0: Final = 1e-12
#: The learning rate at the end, as a share of the largest.
_LAST_RATE: Final = {"cosine": 0.1, "linear": 0.0}


class TokenData(Protocol):
    """Examples in an order that depends on the epoch alone."""

    def plan(self, epoch: int) -> list[list[Ints]]:
        """Return the steps of an epoch, each a list of micro-batches of example numbers; as many in every epoch."""
        ...

    def batch(self, epoch: int, examples: Ints) -> TokenBatch:
        """Return a micro-batch."""
        ...


@dataclass(frozen=True)
class LoopOptions:
    """How a model is trained.

    Attributes
    ----------
    epochs
        At most so many passes; a part of one is possible (0.5).
    learning_rate
        The largest.
    warmup_steps
        Steps in which the rate rises.
    decay
        ``cosine`` (to a tenth) or ``linear`` (to zero).
    weight_decay
        Of AdamW, on matrices only.
    gradient_clip
        Largest gradient norm; 0: any.
    evaluations
        Of the validation loss, an epoch; one more is made at the end.
    patience
        Evaluations without a lower validation loss that end the training; 0: never.
    save_steps
        Steps between two states on disk; one is also written at each evaluation.
    precision
        ``float32``, or ``bf16`` for products.
    seed
        Of order and dropout.
    """

    epochs: float
    learning_rate: float
    warmup_steps: int = 0
    decay: str = "linear"
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    evaluations: float = 1
    patience: int = 0
    save_steps: int = 100
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("decay", DECAYS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, str(getattr(self, name)), allowed)
        low = {"epochs": _ABOVE_0, "learning_rate": _ABOVE_0, "evaluations": _ABOVE_0, "save_steps": 1}
        for option in fields(self):
            value, least = getattr(self, option.name), low.get(option.name, 0)
            if option.name not in ("precision", "decay") and not (value >= least and math.isfinite(value)):
                raise ConfigError(
                    f"{option.name} is {value}. Allowed: {'above 0' if least == _ABOVE_0 else f'from {least}'}. "
                    "See the options with --help."
                )


@dataclass
class Training:
    """How far a training is.

    Attributes
    ----------
    step
        Steps taken.
    best_step, best_loss
        Where the validation loss per token was lowest; step -1: nowhere yet.
    stale
        Evaluations since then.
    losses
        Training loss per token of each step since the last evaluation.
    history
        One record an evaluation: step, loss per token (training since the one before, and validation).
    """

    step: int = 0
    best_step: int = -1
    best_loss: float | None = None
    stale: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)


#: Called after each step with steps taken, steps in all, and the step's loss per token.
OnStep = Callable[[int, int, float], None]


def train_tokens(
    model: nn.Module,
    data: TokenData,
    valid: Sequence[TokenBatch],
    options: LoopOptions,
    folder: Path,
    *,
    on_step: OnStep | None = None,
) -> Training:
    """Train the parameters that require a gradient; the model ends with those of the lowest validation loss.

    Parameters
    ----------
    model
        A causal language model; left in evaluation mode.
    data
        What is learned.
    valid
        Batches on which the loss is watched; without any, the last parameters stay.
    options
        See `LoopOptions`.
    folder
        Where the state is kept. A training that was begun there goes on.
    on_step
        Called after each step.

    Raises
    ------
    TrainingError
        The loss is not finite.
    RunError
        The state in `folder` is damaged or of another model.
    """
    groups = _groups(model, options.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
    loop = _Loop(model, Placed(model, options.precision), optimizer, data, valid, options, folder, Training())
    if (folder / STATE).is_file():
        loop.done = Training(**read_state(folder / STATE, model, optimizer))
    with torch.random.fork_rng(devices=_devices(model)):
        loop.run(on_step)
    if loop.done.best_step >= 0:
        read_parameters(folder / BEST, model)
    model.eval()
    return loop.done


@dataclass
class _Loop:
    model: nn.Module
    loss: Placed
    optimizer: torch.optim.Optimizer
    data: TokenData
    valid: Sequence[TokenBatch]
    options: LoopOptions
    folder: Path
    done: Training

    def run(self, on_step: OnStep | None) -> None:
        """Take the steps that are left."""
        an_epoch = len(self.data.plan(0))
        total = max(1, math.ceil(self.options.epochs * an_epoch))
        marks = _marks(total, an_epoch, self.options.evaluations)
        for step, epoch, parts in self._steps(total, an_epoch):
            if self.options.patience and self.done.stale >= self.options.patience:
                return
            loss = self._step(step, total, epoch, parts)
            self.done.losses.append(loss)
            self.done.step = step + 1
            if self.done.step in marks:
                self._evaluate()
            if self.done.step in marks or self.done.step % self.options.save_steps == 0:
                write_state(self.folder / STATE, self.model, self.optimizer, asdict(self.done))
            if on_step is not None:
                on_step(self.done.step, total, loss)

    def _steps(self, total: int, an_epoch: int) -> Iterator[tuple[int, int, list[Ints]]]:
        first = self.done.step
        for epoch in range(first // an_epoch, math.ceil(total / an_epoch)):
            for place, parts in enumerate(self.data.plan(epoch)):
                step = epoch * an_epoch + place
                if first <= step < total:
                    yield step, epoch, parts

    def _step(self, step: int, total: int, epoch: int, parts: list[Ints]) -> float:
        """Take one step over micro-batches and return its loss per token."""
        torch.manual_seed((self.options.seed * 1_000_003 + step) % (1 << 63))  # dropout of this step
        self.model.train()
        batches = [self.data.batch(epoch, part) for part in parts]
        count = sum(batch.supervised for batch in batches)
        found = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            loss = self.loss(batch) / count
            loss.backward()  # type: ignore[no-untyped-call]
            found += float(loss.detach())
        if not math.isfinite(found):
            raise TrainingError(
                f"the loss is {found} at step {step + 1}. It must stay finite: lower the learning rate "
                f"({self.options.learning_rate}), or use float32 products."
            )
        if self.options.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.gradient_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * rate(step, total, self.options)
        self.optimizer.step()
        return found

    def _evaluate(self) -> None:
        record = {"step": float(self.done.step), "train": float(np.mean(self.done.losses))}
        self.done.losses.clear()
        if self.valid:
            loss = record["valid"] = self.loss.mean(self.valid)
            if self.done.best_loss is None or loss < self.done.best_loss:
                self.done.best_loss, self.done.best_step, self.done.stale = loss, self.done.step, 0
                write_parameters(self.folder / BEST, self.model)
            else:
                self.done.stale += 1
        self.done.history.append(record)


class Placed:
    """A model's loss on batches that come from the CPU, in the precision of the options.

    Parameters
    ----------
    model
        A causal language model.
    precision
        ``float32`` or ``bf16``.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        self.model, self.precision, self.loss = model, precision, TokenLoss(model)
        self.device = next(iter(model.parameters())).device

    def __call__(self, batch: TokenBatch) -> Tensor:
        """Return the summed loss of a batch."""
        placed = TokenBatch(*(tensor.to(self.device, non_blocking=True) for tensor in batch))
        with self._products():
            return self.loss(placed)

    @torch.no_grad()
    def mean(self, batches: Sequence[TokenBatch]) -> float:
        """Return the loss per supervised token, without dropout."""
        self.model.eval()
        return sum(float(self(batch)) for batch in batches) / sum(batch.supervised for batch in batches)

    def _products(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def rate(step: int, total: int, options: LoopOptions) -> float:
    """Return the share of the largest learning rate that step `step` (from 0) of `total` takes.

    A linear rise over the warm-up; then a half cosine down to a tenth, or a line down to zero after the last step.
    """
    warm = min(options.warmup_steps, total - 1)
    if step < warm:
        return (step + 1) / (warm + 1)
    gone = (step - warm) / (total - warm)
    last = _LAST_RATE[options.decay]
    shape = (1 + math.cos(math.pi * gone)) / 2 if options.decay == "cosine" else 1 - gone
    return last + (1 - last) * shape


def _marks(total: int, an_epoch: int, evaluations: float) -> set[int]:
    """Return the counts of steps after which the validation loss is computed, the last among them."""
    every = an_epoch / evaluations
    return {min(total, max(1, round(every * k))) for k in range(1, math.ceil(total / every) + 1)} | {total}


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: matrices decay, gains and biases do not."""
    chosen = [value for value in model.parameters() if value.requires_grad]
    return [
        {"params": [value for value in chosen if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for value in chosen if value.ndim <= 1], "weight_decay": 0.0},
    ]


def _devices(model: nn.Module) -> list[int]:
    device = next(iter(model.parameters())).device
    return [device.index or 0] if device.type == "cuda" else []
