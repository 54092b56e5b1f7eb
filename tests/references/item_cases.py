"""Batches, students and tasks for tests of the strategies on item vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.strategies import Strategy
from recdistill.types import PAD, Batch, StudentOutput, Task


def batch_of(history: list[list[int]], targets: list[int]) -> Batch:
    rows = torch.tensor(history)
    return Batch(rows, (rows != PAD).sum(1), None, torch.tensor(targets), torch.arange(len(targets)))


def output_of(table: Tensor, hidden: Tensor | None = None) -> StudentOutput:
    """A student whose output vectors are its input vectors plus one."""
    hidden = torch.zeros(1, table.shape[1]) if hidden is None else hidden
    return StudentOutput(hidden, table + 1, None, lambda items: table[items])


def prepared(strategy: Strategy, teacher: Tensor, size: int) -> Strategy:
    strategy.prepare(Task(len(teacher), size, size, torch.ones(len(teacher)), item_embeddings=teacher))
    return strategy


def item_vectors(items: int, width: int, seed: int = 0, *, missing: tuple[int, ...] = (3,)) -> Tensor:
    """Random vectors, with zero rows for items without text."""
    made = torch.randn(items, width, generator=torch.Generator().manual_seed(seed)) + 0.5
    made[list(missing)] = 0
    return made
