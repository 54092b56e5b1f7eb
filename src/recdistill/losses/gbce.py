"""Generalised binary cross-entropy: BCE that undoes the overconfidence of negative sampling.

Petrov and Macdonald, "gSASRec: Reducing Overconfidence in Sequential Recommendation Trained with Negative
Sampling", RecSys 2023, https://arxiv.org/abs/2308.07192.

    L = -1 / (n + 1) * ( beta log sigma(f_sy) + sum_j log(1 - sigma(f_sj)) )
    beta = a (t (1 - 1/a) + 1/a),    a = n / (I - 1)

t = 0 gives beta = 1, plain BCE; t = 1 gives beta = a, scores as calibrated as if every item were a negative.

======  ===============  ========  ==========================
symbol  name in code     shape     default and its source
======  ===============  ========  ==========================
t       calibration      scalar    0.75, gSASRec
n       negatives        scalar    256 in gSASRec
a       rate             scalar
beta    exponent         scalar
======  ===============  ========  ==========================

Where the authors' code differs from this file
----------------------------------------------
1. They transform the positive score so that a standard BCE gives sigma^beta, in float64. Here
   ``-log sigma(f)^beta = beta softplus(-f)``: the same number, finite in float32 for every f.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.losses.base import Loss, sampled_negatives
from recdistill.types import Batch, StudentOutput


class GBCE(Loss):
    """Generalised binary cross-entropy.

    Parameters
    ----------
    calibration
        t in [0, 1]: 0 is BCE, 1 is fully calibrated.

    Raises
    ------
    ConfigError
        `calibration` is not in [0, 1].
    """

    needs_negatives: ClassVar[bool] = True

    def __init__(self, *, calibration: float = 0.75) -> None:
        super().__init__()
        if not 0 <= calibration <= 1:
            raise ConfigError(
                f"calibration={calibration}. Allowed: 0 to 1. Set loss.options.calibration=0.75."
            )
        self.calibration = calibration

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        negatives = sampled_negatives(batch)  # (S, n)
        scores = output.scores(torch.cat([batch.targets.unsqueeze(1), negatives], dim=1))
        rate = negatives.shape[1] / (len(output.item_table) - 1)
        exponent = self.calibration * (rate - 1) + 1  # a (t (1 - 1/a) + 1/a)
        positive = exponent * F.softplus(-scores[:, :1])
        return torch.cat([positive, F.softplus(scores[:, 1:])], dim=1).mean()
