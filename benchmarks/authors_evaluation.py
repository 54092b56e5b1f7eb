"""The yardstick's evaluation, written anew from a description: what the authors' program does after an epoch.

All rows at once: the ``(rows, L, D)`` teacher vectors are gathered and projected, the model stays in training
mode with its autograd graph, the ``(rows, I)`` logits are sorted in full, and Python loops count the hits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from authors_step import AuthorsSASRec


def authors_evaluation(
    model: AuthorsSASRec,
    sequences: Tensor,
    lengths: Tensor,
    targets: Tensor,
    cutoffs: Sequence[int] = (1, 5, 10, 20, 50),
) -> tuple[list[int], list[float]]:
    """Return hits and NDCG sums at each cut-off over the rows; divide by their number for HR and NDCG."""
    logits = model(sequences, lengths)  # (rows, I), with its graph
    order = torch.argsort(logits, dim=1, descending=True).cpu()  # (rows, I) int64
    answers = targets.tolist()
    hits, gains = [], []
    for cutoff in cutoffs:
        best = order[:, :cutoff].tolist()
        hit, gain = 0, 0.0
        for row, answer in enumerate(answers):
            if answer in best[row]:
                hit += 1
                gain += 1.0 / math.log2(best[row].index(answer) + 2)
        hits.append(hit)
        gains.append(gain)
    return hits, gains
