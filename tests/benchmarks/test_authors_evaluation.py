"""The yardstick's evaluation counts the hits that a naive rank gives."""

from __future__ import annotations

import math

import pytest
import torch

from authors_evaluation import authors_evaluation
from authors_step import AuthorsSASRec


def test_hits_and_gains_agree_with_ranks() -> None:
    torch.manual_seed(3)
    items, rows = 31, 40
    model = AuthorsSASRec(items, torch.randn(items, 5), size=8, length=4, dropout=0.0)
    sequences = torch.randint(0, items, (rows, 4))
    lengths = torch.full((rows,), 4)
    targets = torch.randint(0, items, (rows,))
    hits, gains = authors_evaluation(model, sequences, lengths, targets, (1, 5, 20))
    logits = model(sequences, lengths)
    ranks = [(logits[row] > logits[row, target]).sum().item() for row, target in enumerate(targets.tolist())]
    assert hits == [sum(rank < k for rank in ranks) for k in (1, 5, 20)]
    expected = [sum(1 / math.log2(rank + 2) for rank in ranks if rank < k) for k in (1, 5, 20)]
    assert gains == pytest.approx(expected)
