"""What a strategy is."""

from __future__ import annotations

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
        ``query_embeddings``, ``item_embeddings``. An object whose options switch a part off may need less.
    """

    requires: frozenset[str] = frozenset()

    def prepare(self, task: Task) -> None:
        """Take what is known before the first batch; a strategy with own parameters makes them here."""

    def on_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins, counted from 0; a resumed run tells the epoch in which it goes on."""

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss: mean over the S rows of the batch, a row without knowledge counting 0."""
        raise NotImplementedError


class ListStrategy(Strategy):
    """A strategy whose loss is a sum over the teacher's list of each row."""

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, the loss of each row, 0 where the row has no knowledge."""
        raise NotImplementedError

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, the mean of `per_row` over all S rows."""
        return self.per_row(output, batch).mean()
