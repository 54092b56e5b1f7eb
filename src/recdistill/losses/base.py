"""What a loss is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from recdistill.errors import ConfigError
from recdistill.types import Batch, StudentOutput, Task


class Loss(nn.Module):
    """The recommendation loss L_r of eq. 11: what the student learns from the targets.

    Attributes
    ----------
    needs_negatives
        Whether `Batch.negatives` must be sampled.
    """

    needs_negatives: ClassVar[bool] = False

    def prepare(self, task: Task) -> None:
        """Take what is known before the first batch, e.g. the items' popularity."""

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        raise NotImplementedError


def sampled_negatives(batch: Batch) -> Tensor:
    """Return the batch's ``(S, n)`` negatives.

    Raises
    ------
    ConfigError
        The batch has none.
    """
    if batch.negatives is None:
        raise ConfigError(
            "the loss needs sampled negatives, and the batch has none. Allowed: one or more a row. "
            "Set train.negatives=1, or choose loss.name=ce, which needs none."
        )
    return batch.negatives
