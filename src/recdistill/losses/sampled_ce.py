"""Cross-entropy over a sample of items that all rows of a batch share.

Bengio and Senécal, "Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic Language
Model", 2008; Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019.

    L = mean_s ( log( exp f_sy + sum_{j in N, j != y} exp(f_sj - log(n q_j)) ) - f_sy ),    j ~ q, n draws

n q_j is how often item j is expected in the sample; subtracting its logarithm makes the sum an unbiased
estimate of the sum over all items but y. One sample a batch makes the scores one matrix product; a sample
for each row, as in gSASRec and RecTools, costs more than the softmax over a few thousand items.

======  =================  ======  ============================================================
symbol  name in code       shape   default and its source
======  =================  ======  ============================================================
n       negatives          scalar  256, gSASRec
q       probabilities      (I,)    popularity^power, normalised; power 0 (uniform)
======  =================  ======  ============================================================

Where the authors' code differs from this file
----------------------------------------------
1. Yi et al. take the other targets of the batch as the sample. Here it is drawn, so that its size is free.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.losses.base import Loss
from recdistill.types import Batch, StudentOutput, Task


def sampled_cross_entropy(
    output: StudentOutput, targets: Tensor, sample: Tensor, log_counts: Tensor
) -> Tensor:
    """Return the scalar loss above.

    Parameters
    ----------
    output
        The student's answer.
    targets
        ``(S,)`` int64.
    sample
        ``(n,)`` items, repeats allowed.
    log_counts
        ``(n,)`` log of how often each is expected in the sample.
    """
    offset = log_counts if output.item_bias is None else log_counts - output.item_bias[sample]
    others = output.hidden @ output.vectors(sample).T - offset  # (S, n)
    left_out = sample == targets.unsqueeze(1)  # (S, n)
    if output.cold is not None:
        left_out = left_out | output.cold[sample]
    others = others.masked_fill(left_out, -torch.inf)
    positive = output.scores(targets.unsqueeze(1))  # (S, 1)
    return (torch.cat([positive, others], dim=1).logsumexp(1) - positive.squeeze(1)).mean()


class SampledCE(Loss):
    """Cross-entropy of the target against negatives that the rows of a batch share.

    Parameters
    ----------
    negatives
        n, drawn for each batch with replacement.
    power
        q is proportional to popularity^power: 0 uniform, 1 by popularity.

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    """

    probabilities: Tensor

    def __init__(self, *, negatives: int = 256, power: float = 0.0) -> None:
        super().__init__()
        if negatives < 1 or power < 0:
            raise ConfigError(
                f"negatives={negatives}, power={power}. Allowed: negatives at least 1, power at least 0. "
                "Set loss.options.negatives=256 loss.options.power=0."
            )
        self.negatives = negatives
        self.power = power
        self.register_buffer("probabilities", torch.empty(0), persistent=False)

    def prepare(self, task: Task) -> None:
        """Form q from the items' popularity; an item that is never a target counts as if it were one once."""
        weights = task.popularity.float().clamp_min(1).pow(self.power)
        self.probabilities = (weights / weights.sum()).to(self.probabilities.device)

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        sample = torch.multinomial(self.probabilities, self.negatives, replacement=True)  # (n,)
        log_counts = self.probabilities[sample].log() + math.log(self.negatives)
        return sampled_cross_entropy(output, batch.targets, sample, log_counts)
