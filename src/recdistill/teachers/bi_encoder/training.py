"""Training a bi-encoder: rounds that end in a refresh of the item vectors, a judgement and a saved state.

Every random draw comes from (seed, fold, pass, step), so a run that is killed and started again makes the steps it
would have made. Round 0 is the untrained model: where training does not beat it, it stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import TrainingError
from recdistill.runs import read_json, write_json
from recdistill.teachers import base
from recdistill.teachers.bi_encoder.loss import step_loss
from recdistill.teachers.bi_encoder.model import BiEncoder, add_repeats
from recdistill.teachers.bi_encoder.options import BiEncoderOptions
from recdistill.teachers.bi_encoder.steps import Steps
from recdistill.teachers.text_query import newest_first
from recdistill.teachers.training_state import read_parameters, read_state, write_parameters, write_state

Ints = npt.NDArray[np.int64]

#: Called with the round's name, steps done in it, steps of the round, and the step's loss.
OnStep = Callable[[str, int, int, float], None]

_VALID_ROWS = 8192
_SCORE_ROWS = 512
_WARM_STEPS = 10


@dataclass
class _Progress:
    round: int = 0
    best: float = -1.0
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


class BiEncoderTraining:
    """Trains one model; what was trained before is not trained again.

    Parameters
    ----------
    model
        With its start weights and a fresh table.
    dataset
        Its valid rows pick the round; without any the last one stays.
    rows
        ``(N,)`` positions of the training rows.
    folder
        For ``last.safetensors`` (an unfinished run), ``best.safetensors`` and ``result.json``.
    seed
        Any numbers; different folds take different ones.
    on_step
        Hears how it goes.
    """

    def __init__(
        self,
        model: BiEncoder,
        dataset: SequenceDataset,
        rows: Ints,
        folder: Path,
        *,
        seed: tuple[int, ...] = (0,),
        on_step: OnStep | None = None,
    ) -> None:
        options = model.options
        self.model, self.dataset, self.folder, self.on_step = model, dataset, folder, on_step
        history = newest_first(dataset, rows, options.last_items)  # (N, L)
        known = model.has_text[:, 0].cpu().numpy()
        self.steps = Steps(history, dataset.targets(rows), known, options, seed)
        self.valid = base.some_rows(dataset.rows("valid"), _VALID_ROWS)
        self.rounds = rounds_of(options)
        self.optimiser = optimiser_of(model)
        self.progress = _Progress()

    def fit(self) -> dict[str, Any]:
        """Train to the end, leave the best weights and their table in the model, and return ``result.json``: the
        record of the ``best`` round and the ``history`` of all.

        Raises
        ------
        TrainingError
            The loss is not finite.
        RunError
            A saved state is damaged or of another shape.
        """
        if not (self.folder / "result.json").is_file():
            self._run()
        read_parameters(self.folder / "best.safetensors", self.model)
        self.model.refresh()
        result: dict[str, Any] = read_json(self.folder / "result.json")
        return result

    def _run(self) -> None:
        state = self.folder / "last.safetensors"
        if state.is_file():
            self.progress = _Progress(**read_state(state, self.model, self.optimiser))
            self.model.refresh()
        else:
            self._judge("untrained", 0.0)
        while self.progress.round < len(self.rounds) and self.progress.waited < self.model.options.patience:
            self._round(*self.rounds[self.progress.round])
        history = self.progress.history
        best = max(history, key=lambda r: r["ndcg@20"]) if len(self.valid) else history[-1]
        write_json(self.folder / "result.json", {"best": best, "history": history})
        state.unlink(missing_ok=True)

    def _round(self, name: str, number: int, part: int) -> None:
        head = name == "head"
        steps = self.steps.of_pass(number, head)
        count = 1 if head else self.model.options.refreshes
        chosen = np.array_split(np.arange(len(steps)), count)[part]
        losses = []
        for done, index in enumerate(chosen.tolist()):
            self._rate(head, number * len(steps) + index, len(steps))
            losses.append(self._step(steps[index], number, index, head))
            if self.on_step is not None:
                self.on_step(f"{name} {number + 1}", done + 1, len(chosen), losses[-1])
        if not head:
            self.model.refresh()
        self.progress.round += 1
        self._judge(name, float(np.mean(losses)) if losses else 0.0)

    def _step(self, part: Ints, number: int, index: int, head: bool) -> float:
        step = self.steps.step(part, number, index, head)
        loss = step_loss(self.model, step)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in pass {number + 1}, step {index + 1}. It must stay finite: pass a smaller "
                "--learning-rate and --tower-learning-rate, or --precision float32."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return value

    def _rate(self, head: bool, done: int, steps: int) -> None:
        """Raise the rates over the first steps of a phase; over the encoder's passes let them fall to a tenth."""
        scale = min(1.0, (done + 1) / _WARM_STEPS)
        if not head:
            scale *= 1 - 0.9 * done / max(1, steps * self.model.options.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * scale

    def _judge(self, name: str, loss: float) -> None:
        """Judge the model, keep the weights if they are the best, save the state."""
        at = self.progress
        found = quality(self.model, self.dataset, self.valid)
        better = found["ndcg@20"] > at.best or not len(self.valid)
        if better:
            write_parameters(self.folder / "best.safetensors", self.model)
        tower = name not in ("untrained", "head")  # patience counts rounds of the encoder
        at.waited = 0 if better else at.waited + tower
        at.best = max(at.best, found["ndcg@20"])
        at.history = [*at.history, {"round": name, "loss": loss, **found}]
        write_state(self.folder / "last.safetensors", self.model, self.optimiser, vars(at))


def rounds_of(options: BiEncoderOptions) -> list[tuple[str, int, int]]:
    """Return name, pass and part of the pass of each round.

    Text queries are encoded anew in every row of every step, so they have no cheap passes of the head alone.
    """
    head = options.epochs if options.tune == "none" else 0 if options.query == "text" else options.head_epochs
    rounds = [("head", number, 0) for number in range(head)]
    if options.tune != "none":
        passes = range(options.epochs)
        rounds += [("encoder", number, part) for number in passes for part in range(options.refreshes)]
    return rounds


def optimiser_of(model: BiEncoder) -> torch.optim.Optimizer:
    """Return AdamW over head and encoder, each at its rate, matrices with weight decay."""
    options, groups = model.options, []
    tower = [p for p in model.tower.parameters() if p.requires_grad]
    rates = ((model.head_parameters(), options.learning_rate), (tower, options.tower_learning_rate))
    for parameters, rate in rates:
        for matrix in (True, False):
            chosen = [p for p in parameters if (p.ndim > 1) == matrix]
            decay = options.weight_decay if matrix else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


@torch.no_grad()
def quality(model: BiEncoder, dataset: SequenceDataset, rows: Ints) -> dict[str, float]:
    """Return ``hr@20`` and ``ndcg@20`` over the whole catalogue, seen items kept; zeros without rows."""
    table, ranks = model.table(), [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(rows), _SCORE_ROWS):
        part = rows[start : start + _SCORE_ROWS]
        history = newest_first(dataset, part, model.options.last_items)
        scores = scores_of(model, history, table)
        targets = torch.from_numpy(dataset.targets(part)).to(scores.device)
        own = scores.gather(1, targets[:, None])
        ranks.append(((scores >= own).sum(1) - 1).cpu().numpy())
    found = np.concatenate(ranks)
    return {"hr@20": float((found < 20).mean()) if len(found) else 0.0, "ndcg@20": base.ndcg(found)}


@torch.no_grad()
def scores_of(model: BiEncoder, history: Ints, table: Tensor) -> Tensor:
    """Return ``(B, I)`` scores of eq. 4 for ``(B, L)`` items, newest first."""
    scores = model.queries(history, table) @ table.T
    return add_repeats(scores, torch.from_numpy(history).to(table.device), model.repeat)
