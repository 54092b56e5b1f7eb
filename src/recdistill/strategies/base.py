"""What a strategy is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from recdistill.types import Batch, StudentOutput, Task


class Strategy(nn.Module):
    """What the student learns from the teacher: a term added to the loss.

    A strategy reads tensors. It never sees the language model, a file, the trainer or the config. Its
    constructor takes flat keyword arguments; what depends on the data comes with `prepare`.

    Attributes
    ----------
    requires
        Fields of the knowledge that must be there: ``ranking``, ``ranking_distance``, ``target_distance``,
        ``query_embeddings``, ``item_embeddings``.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def prepare(self, task: Task) -> None:
        """Take what is known before the first batch; a strategy with own parameters makes them here."""

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss: mean over the S rows of the batch, a row without knowledge counting 0."""
        raise NotImplementedError
