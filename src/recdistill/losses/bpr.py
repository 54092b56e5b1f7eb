"""Bayesian personalised ranking: the target above sampled negatives.

Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009, https://arxiv.org/abs/1205.2618.

    L = mean_s mean_j -log sigma(f_sy - f_sj)

======  ===============  ========
symbol  name in code     shape
======  ===============  ========
f_sy    scores[:, :1]    (S, 1)
f_sj    scores[:, 1:]    (S, n)
======  ===============  ========

Where the authors' code differs from this file
----------------------------------------------
1. The DROS code puts elu(f) + 1 in the place of f, so that its radius sees positive scores. Plain f here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.losses.base import Loss, sampled_negatives
from recdistill.types import Batch, StudentOutput


class BPR(Loss):
    """Logistic loss of the target's lead over each negative, mean over negatives and rows."""

    needs_negatives: ClassVar[bool] = True

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        items = torch.cat([batch.targets.unsqueeze(1), sampled_negatives(batch)], dim=1)  # (S, 1 + n)
        scores = output.scores(items)
        return F.softplus(scores[:, 1:] - scores[:, :1]).mean()
