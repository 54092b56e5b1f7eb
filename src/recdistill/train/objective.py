"""The total loss: L_r plus the weighted terms of the strategies (eq. 11)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from recdistill.errors import KnowledgeError
from recdistill.losses import Loss
from recdistill.strategies import Strategy
from recdistill.students import SequenceModel
from recdistill.types import Batch, Task


class Objective(nn.Module):
    """A student, its loss, and what it learns from the teacher, as one module with one ``forward``.

    A user encoder with a term of its own, such as the reconstruction of LLM-CF, adds it with its own weight.

    Parameters
    ----------
    model
        The student between its item tables.
    loss
        L_r.
    strategies
        Pairs (λ, strategy); the total is ``L_r + Σ λ · L_d``.
    task
        Given to loss and strategies before the first batch.
    """

    def __init__(
        self, model: SequenceModel, loss: Loss, strategies: Sequence[tuple[float, Strategy]], task: Task
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.strategies = nn.ModuleList([strategy for _, strategy in strategies])
        self.weights = [weight for weight, _ in strategies]
        own = model.user_encoder
        self.term = own if own is not None and own.term_weight else None
        loss.prepare(task)
        for _, strategy in strategies:
            strategy.prepare(task)

    @property
    def names(self) -> list[str]:
        """Names of the terms, in the order of `forward`'s second answer."""
        parts = [*self.strategies, *([] if self.term is None else [self.term])]
        return ["loss", *(type(part).__name__.lower() for part in parts)]

    def on_epoch(self, epoch: int) -> None:
        """Tell the strategies which epoch begins."""
        for strategy in self.strategies:
            strategy.on_epoch(epoch)  # type: ignore[operator]

    def forward(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return the total loss of a batch and its unweighted terms.

        Raises
        ------
        KnowledgeError
            There are strategies, and the batch carries no knowledge.
        """
        if len(self.strategies) and batch.knowledge is None:
            raise KnowledgeError("a strategy needs knowledge, and none is given. Pass --knowledge k/.")
        output = self.model(batch)
        terms = [self.loss(output, batch), *(strategy(output, batch) for strategy in self.strategies)]
        weights = list(self.weights)
        if self.term is not None:
            terms.append(self.term.term())
            weights.append(self.term.term_weight)
        total = terms[0]
        for weight, term in zip(weights, terms[1:], strict=True):
            total = total + weight * term
        return total, terms
