"""Training an item-head model: AdamW, the softmax over the items that can be answers, the best epoch on validation.

Every random draw comes from (seed, model, epoch, step), so a run that is killed and started again makes the steps
it would have made, and ends with the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recdistill.errors import TrainingError
from recdistill.losses.ce import chunked_cross_entropy
from recdistill.runs import read_json, write_json
from recdistill.teachers.item_head.judging import autocast, quality, temperature
from recdistill.teachers.item_head.model import ItemHeadModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.plan import Plan
from recdistill.teachers.training_state import read_parameters, read_state, write_parameters, write_state

Ints = npt.NDArray[np.int64]

#: Called with epoch, rows trained in this epoch so far, rows of an epoch, and the step's loss.
OnStep = Callable[[int, int, int, float], None]

#: Rows ``(S,)``, their queries ``(S, d + 1)`` and the table ``(I, d + 1)`` to a scalar that is added to the loss.
Term = Callable[[Ints, Tensor, Tensor], Tensor]

_CHECKPOINT_SECONDS = 300.0


@dataclass
class _Progress:
    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float = 0.0
    rows: int = 0
    best: float = -math.inf
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class ItemHeadTraining:
    """Trains one model on the rows of a plan; what was trained before is not trained again.

    Parameters
    ----------
    model
        With its start weights; its `know` is called.
    plan
        The training rows.
    valid
        The rows whose NDCG@20, seen items kept, picks the epoch; without rows the last epoch stays.
    options
        See `ItemHeadOptions`.
    folder
        For ``last.safetensors`` (the state of an unfinished run), ``best.safetensors`` and ``result.json``.
    held_out
        Rows like those that the model will answer, for the temperature; None: `valid`.
    seed
        Any numbers; different models take different ones.
    on_step
        Hears how it goes.
    term
        What is learned beside the true items, or None. It may not draw random numbers.
    """

    def __init__(
        self,
        model: ItemHeadModel,
        plan: Plan,
        valid: Plan,
        options: ItemHeadOptions,
        folder: Path,
        *,
        held_out: Plan | None = None,
        seed: tuple[int, ...] = (0,),
        on_step: OnStep | None = None,
        term: Term | None = None,
    ) -> None:
        self.model, self.plan, self.valid, self.options = model, plan, valid, options
        self.folder, self.seed, self.on_step, self.term = folder, seed, on_step, term
        self.held_out = valid if held_out is None else held_out
        self.device = model.head_free.device
        self.answers, self.answer_of = know(model, plan)
        self.optimiser = optimiser_of(model, options)
        self.progress = _Progress()
        self._saved_at = time.monotonic()

    def fit(self) -> dict[str, Any]:
        """Train to the end, leave the best weights in the model, and return what is in ``result.json``: the record of
        the ``best`` epoch, the ``history`` of all, and the ``temperature`` that fits the rows held out.

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
        self.model.eval()
        result: dict[str, Any] = read_json(self.folder / "result.json")
        if "temperature" not in result:
            result["temperature"] = temperature(self.model, self.held_out, self.options)
            write_json(self.folder / "result.json", result)
        return result

    def _run(self) -> None:
        state = self.folder / "last.safetensors"
        if state.is_file():
            self.progress = _Progress(**read_state(state, self.model, self.optimiser))
        options = self.options
        try:
            while self.progress.epoch < options.epochs and self.progress.waited < options.patience:
                self._epoch()
        except KeyboardInterrupt:
            self._save()
            raise
        judged = bool(len(self.valid.rows))
        history = self.progress.history if judged else self.progress.history[-1:]
        best = max(history, key=lambda record: record["ndcg@20"])  # the first of equals, as kept
        write_json(self.folder / "result.json", {"best": best, "history": self.progress.history})
        state.unlink(missing_ok=True)

    def _epoch(self) -> None:
        at = self.progress
        generator = np.random.default_rng([*self.seed, at.epoch])
        batches = self.plan.shuffled(self.options.batch_tokens, generator)
        self.model.train()
        while at.step < len(batches):
            self._rate(at.total_steps / (len(batches) * self.options.epochs))
            self._step(batches[at.step])
            if time.monotonic() - self._saved_at > _CHECKPOINT_SECONDS:
                self._save()
        self._judge()

    def _step(self, pieces: Ints) -> None:
        at, batch = self.progress, self.plan.batch(pieces)
        seed = np.random.SeedSequence([*self.seed, at.epoch, at.step]).generate_state(1)[0]
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(seed))
            with autocast(self.device, self.options):
                query = self.model(self._here(batch.tokens), self._here(batch.ends))  # (S, d + 1)
                targets = self.answer_of[self._here(self.plan.dataset.targets(batch.rows))]
                loss = self._loss(query.float(), targets)
                if self.term is not None:  # last: what it draws leaves the draws above as they are
                    loss = loss + self.term(batch.rows, query.float(), self.model.table().float())
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} in epoch {at.epoch + 1}, step {at.step + 1}. It must stay finite: pass a "
                "smaller --learning-rate and --lm-learning-rate, or --precision float32."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.options.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.gradient_clip)
        self.optimiser.step()
        at.step, at.total_steps = at.step + 1, at.total_steps + 1
        at.loss, at.rows = at.loss + value * len(batch.rows), at.rows + len(batch.rows)
        if self.on_step is not None:
            self.on_step(at.epoch, at.rows, len(self.plan.rows), value)

    def _loss(self, query: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of ``(S,)`` places in `answers`, over all of them or over a sample."""
        count, sampled = len(self.answers), self.options.negatives
        if not 0 < sampled < count:
            table = self.model.table(self.answers)  # (n, d + 1)
            return chunked_cross_entropy(query[:, :-1], table[:, :-1], table[:, -1], targets)
        sample = torch.randint(count, (sampled,)).to(targets.device)
        others = query @ self.model.table(self.answers[sample]).float().T + math.log((count - 1) / sampled)
        others = others.masked_fill(sample == targets.unsqueeze(1), -torch.inf)  # (S, m)
        own = (query * self.model.table(self.answers[targets]).float()).sum(1, keepdim=True)
        return cross_entropy(torch.cat([own, others], 1), torch.zeros_like(targets))

    def _rate(self, done: float) -> None:
        """Raise the rate over the warm-up share, then let it fall to a tenth."""
        warm = self.options.warmup
        scale = (done + 1e-3) / warm if done < warm else 1 - 0.9 * (done - warm) / (1 - warm + 1e-9)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * min(1.0, scale)

    def _judge(self) -> None:
        """End the epoch: validate, keep the weights if they are the best, save the state."""
        at = self.progress
        record = {
            "epoch": at.epoch + 1,
            "loss": at.loss / max(1, at.rows),
            **quality(self.model, self.valid, self.options),
        }
        better = record["ndcg@20"] > at.best or not len(self.valid.rows)
        if better:
            write_parameters(self.folder / "best.safetensors", self.model)
        history = [*at.history, record]
        self.progress = _Progress(
            epoch=at.epoch + 1,
            total_steps=at.total_steps,
            best=max(at.best, record["ndcg@20"]),
            waited=0 if better else at.waited + 1,
            history=history,
        )
        self._save()

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        progress = vars(self.progress) | {"best": max(self.progress.best, -1.0)}  # JSON knows no -inf
        write_state(self.folder / "last.safetensors", self.model, self.optimiser, progress)

    def _here(self, array: Ints) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def know(model: ItemHeadModel, plan: Plan) -> tuple[Tensor, Tensor]:
    """Tell the model which items its training rows show; return the items that are answers.

    Items that are never an answer in training are left out of the training softmax: in it they could only ever
    be wrong, and the text projection would learn to push them, and all that reads like them, down.

    Returns
    -------
    tuple of Tensor
        ``(n,)`` items that are answers, ascending, and ``(I,)`` the place of each item in it (-1 elsewhere).
    """
    count, device = plan.dataset.item_count, model.head_free.device
    read = np.bincount(plan.items, minlength=count) > 0
    answered = np.bincount(plan.dataset.targets(plan.rows), minlength=count) > 0
    model.know(torch.from_numpy(read).to(device), torch.from_numpy(answered).to(device))
    answers = np.flatnonzero(answered)
    place = np.full(count, -1, dtype=np.int64)
    place[answers] = np.arange(len(answers))
    return torch.from_numpy(answers).to(device), torch.from_numpy(place).to(device)


def optimiser_of(model: ItemHeadModel, options: ItemHeadOptions) -> torch.optim.Optimizer:
    """Return AdamW over what is trained: the language model's own at its rate, matrices with weight decay."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("decoder."), parameter.ndim > 1), []).append(parameter)
    lists = []
    for (own, matrix), parameters in groups.items():
        rate = options.lm_learning_rate if own else options.learning_rate
        decay = options.weight_decay if matrix else 0.0
        lists.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    fused = model.head_free.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(lists, betas=(0.9, 0.98), fused=fused)
