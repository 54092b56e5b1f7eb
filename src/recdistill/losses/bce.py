"""Binary cross-entropy with sampled negatives, the L_r of DLLM2Rec.

Cui et al., "Distillation Matters", RecSys 2024, https://arxiv.org/abs/2405.00338, eq. 3; Kang and McAuley,
ICDM 2018.

    L_r = -sum_s ( log sigma(f_sy) + sum_{j in O-} log(1 - sigma(f_sj)) )

with ``-log sigma(x) = softplus(-x)`` and ``-log(1 - sigma(x)) = softplus(x)``, finite for every x. All
losses here are means over the rows s.

======  ===============  ========  =========================
symbol  name in code     shape     default and its source
======  ===============  ========  =========================
f_sy    scores[:, 0]     (S,)
f_sj    scores[:, 1:]    (S, n)    n = 1, authors' code
======  ===============  ========  =========================

Where the authors' code differs from this file
----------------------------------------------
1. They take the mean over all 2S terms, which halves L_r against the distillation term, whose terms they add.
   ``reduction="official"`` does that; ``"paper"`` adds the terms of a row as eq. 3 does.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.errors import unknown_name
from recdistill.losses.base import Loss, sampled_negatives
from recdistill.types import Batch, StudentOutput

Reduction = Literal["paper", "official"]


class BCE(Loss):
    """Binary cross-entropy of the target against sampled negatives.

    Parameters
    ----------
    reduction
        ``"paper"``: the terms of a row are added (eq. 3). ``"official"``: their mean, half as much for one
        negative.

    Raises
    ------
    ConfigError
        `reduction` does not exist.
    """

    needs_negatives: ClassVar[bool] = True

    def __init__(self, *, reduction: Reduction = "paper") -> None:
        super().__init__()
        if reduction not in ("paper", "official"):
            raise unknown_name("reduction", reduction, ("paper", "official"))
        self.reduction = reduction

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        items = torch.cat([batch.targets.unsqueeze(1), sampled_negatives(batch)], dim=1)  # (S, 1 + n)
        scores = output.scores(items)
        terms = torch.cat([F.softplus(-scores[:, :1]), F.softplus(scores[:, 1:])], dim=1)
        return terms.mean() if self.reduction == "official" else terms.sum(1).mean()
