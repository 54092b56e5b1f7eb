"""What a loss is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

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
