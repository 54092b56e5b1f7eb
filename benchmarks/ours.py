"""The library's side of the comparisons, built from its public parts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.export.fold import fold
from recdistill.item_encoders import Collaborative, Ids, ItemEncoder
from recdistill.knowledge import Knowledge
from recdistill.losses import Loss
from recdistill.strategies import Strategy
from recdistill.students import SASRec, SequenceModel
from recdistill.train import BatchLoader, Objective, Trainer, TrainOptions
from recdistill.train.distill import describe_task
from recdistill.types import Batch

SIZE = 64


def paper_sasrec(
    item_count: int,
    teacher_items: np.ndarray | None,
    *,
    inject_weight: float = 0.3,
    length: int = 10,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> SequenceModel:
    """Return the authors' student: one block, one head, untied head with bias, teacher vectors as input."""
    inputs: ItemEncoder = Ids(item_count, SIZE)
    if teacher_items is not None:
        vectors = torch.from_numpy(teacher_items)
        inputs = Collaborative(
            item_count, SIZE, vectors, weight=inject_weight, standardise=False, dtype=dtype
        )
    student = SASRec(embedding_size=SIZE, variant="paper", max_length=length)
    return SequenceModel(student, inputs, Ids(item_count, SIZE), bias=True)


def modern_sasrec(
    item_count: int, *, length: int, expansion: int, heads: int, dropout: float
) -> SequenceModel:
    """Return two pre-norm blocks over a tied table."""
    table = Ids(item_count, SIZE, std=0.02)
    student = SASRec(
        embedding_size=SIZE,
        variant="modern",
        blocks=2,
        heads=heads,
        max_length=length,
        dropout=dropout,
        expansion=expansion,
    )
    return SequenceModel(student, table, table, bias=False)


def folded_scorer(model: SequenceModel) -> Callable[[np.ndarray], Tensor]:
    """Return what evaluation calls: histories ``(B, L)`` to scores ``(B, I)`` of the folded model."""
    folded = fold(model)
    return lambda histories: folded.score(torch.from_numpy(histories))


class Steps:
    """The library's training steps, one at a time: the next batch of the loader, then the trainer's step."""

    def __init__(
        self,
        dataset: SequenceDataset,
        model: SequenceModel,
        loss: Loss,
        strategies: Sequence[tuple[float, Strategy]],
        knowledge: Knowledge | None,
        loader: BatchLoader,
        options: TrainOptions,
    ) -> None:
        self.objective = Objective(model, loss, strategies, describe_task(dataset, model, knowledge))
        self._folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(
            self.objective,
            loader,
            dict,
            lambda: None,
            options,
            Path(self._folder.name),
        )
        self.trainer.module.train()
        self.loader = loader
        self._batches = self._endless()
        self.targets = 0

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from self.loader.epoch(epoch)
            epoch += 1

    def __call__(self) -> None:
        """Take one step; `targets` afterwards says how many rows it supervised."""
        batch = next(self._batches)
        self.targets = len(batch.targets)
        self.trainer._step(batch)
