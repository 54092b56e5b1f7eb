from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from recdistill.types import PAD, Batch, KnowledgeRows, StudentOutput


@dataclass
class Case:
    """Logits that take a gradient, what the student answers, and a batch."""

    logits: Tensor
    batch: Batch

    def output(self, *, computed: bool = True) -> StudentOutput:
        """The student's answer, with its logits already computed (as most losses do) or not."""
        items = self.logits.shape[1]
        output = StudentOutput(self.logits, torch.eye(items), None, lambda index: torch.eye(items)[index])
        if computed:
            assert output.logits.shape == self.logits.shape
        return output


def case_of(
    logits: Tensor,
    ranking: Tensor,
    *,
    targets: Tensor | None = None,
    history: Tensor | None = None,
    negatives: Tensor | None = None,
    target_distance: Tensor | None = None,
    ranking_distance: Tensor | None = None,
    covered: Tensor | None = None,
) -> Case:
    rows = len(logits)
    history = torch.full((rows, 1), logits.shape[1] - 1) if history is None else history
    return Case(
        logits.detach().clone().requires_grad_(),
        Batch(
            history=history,
            lengths=(history != PAD).sum(1),
            positions=None,
            targets=torch.full((rows,), logits.shape[1] - 1) if targets is None else targets,
            row_ids=torch.arange(rows),
            negatives=negatives,
            knowledge=KnowledgeRows(
                covered=torch.ones(rows, dtype=torch.bool) if covered is None else covered,
                ranking=ranking,
                ranking_distance=ranking_distance,
                target_distance=target_distance,
            ),
        ),
    )


def random_case(seed: int, *, rows: int = 6, items: int = 40, width: int = 8, short: bool = True) -> Case:
    """Random rows; where `short`, lists of different lengths and a row that is not covered."""
    generator = torch.Generator().manual_seed(seed)
    ranking = torch.stack([torch.randperm(items, generator=generator)[:width] for _ in range(rows)])
    distance = torch.rand(rows, width, generator=generator).mul(4).sort(1).values
    covered = torch.ones(rows, dtype=torch.bool)
    if short:
        lengths = torch.randint(1, width + 1, (rows,), generator=generator)
        ranking = ranking.masked_fill(torch.arange(width) >= lengths.unsqueeze(1), PAD)
        covered[rows // 2] = False
    return case_of(
        2 * torch.randn(rows, items, generator=generator),
        ranking,
        targets=torch.randint(items, (rows,), generator=generator),
        history=torch.randint(items, (rows, 5), generator=generator),
        negatives=torch.randint(items, (rows, 1), generator=generator),
        target_distance=3 * torch.rand(rows, generator=generator),
        ranking_distance=distance,
        covered=covered,
    )


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    return case_of


@pytest.fixture(scope="session")
def make_random() -> Callable[..., Case]:
    return random_case
