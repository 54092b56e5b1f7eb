"""What a student is, and how it is joined to its item tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from recdistill.item_encoders.base import ItemEncoder
from recdistill.students.layers import take_last
from recdistill.types import PAD, Batch, StudentOutput
from recdistill.user_encoders.base import UserEncoder


class Student(nn.Module):
    """History to hidden state.

    Attributes
    ----------
    causal
        Whether position l of the output depends on positions up to l only: all positions can be supervised.
    embedding_size
        d, the width it reads.
    hidden_size
        H, the width it writes.
    """

    causal: ClassVar[bool] = True
    embedding_size: int
    hidden_size: int

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, L, H)`` hidden states for ``(B, L, d)`` item vectors, zero at the pads."""
        raise NotImplementedError

    def last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, H)``, the hidden state of the last item of each history."""
        return take_last(self(embedded, lengths), lengths)


class SequenceModel(nn.Module):
    """A student between an input and an output item table.

    Parameters
    ----------
    student
        History to hidden state.
    item_encoder
        Forms the input vectors: called with ``(n,)`` items it returns ``(n, d)``, with None ``(I, d)``.
    output_encoder
        Forms the ``(I, H)`` output vectors. The same object as `item_encoder` means a tied table.
    bias
        Whether the output has one learned bias an item.
    user_encoder
        Changes hidden states by what is known of the rows, or None: the history alone counts.
    """

    def __init__(
        self,
        student: Student,
        item_encoder: ItemEncoder,
        output_encoder: ItemEncoder,
        *,
        bias: bool,
        user_encoder: UserEncoder | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.item_encoder = item_encoder
        self.output_encoder = output_encoder
        self.user_encoder = user_encoder
        item_count = int(output_encoder.item_count)
        self.item_bias = nn.Parameter(torch.zeros(item_count)) if bias else None

    @property
    def tied(self) -> bool:
        """Whether input and output share one table."""
        return self.item_encoder is self.output_encoder

    def embed(self, history: Tensor) -> Tensor:
        """Return ``(B, L, d)`` input vectors; pads become zero vectors."""
        items = history.clamp_min(0).flatten()
        vectors: Tensor = self.item_encoder(items).view(*history.shape, -1)
        return vectors * (history != PAD).unsqueeze(-1)

    def encode(
        self,
        history: Tensor,
        lengths: Tensor,
        positions: Tensor | None = None,
        row_ids: Tensor | None = None,
    ) -> Tensor:
        """Return ``(S, H)`` hidden states at the flat `positions`; None: ``(B, H)`` at the last items.

        A user encoder changes them by what is known of the ``(S,)`` `row_ids`; without ids the rows are `PAD`:
        strangers, of whom the history tells all.
        """
        embedded = self.embed(history)
        if positions is None:
            hidden = self.student.last(embedded, lengths)
        else:
            every: Tensor = self.student(embedded, lengths)  # (B, L, H)
            hidden = every.flatten(0, 1).index_select(0, positions)
        if self.user_encoder is None:
            return hidden
        if row_ids is None:
            row_ids = lengths.new_full((len(hidden),), PAD)
        changed: Tensor = self.user_encoder(hidden, row_ids, history, lengths, positions)
        return changed

    def forward(self, batch: Batch) -> StudentOutput:
        """Answer a batch."""
        hidden = self.encode(batch.history, batch.lengths, batch.positions, batch.row_ids)
        warm = self.output_encoder.warm
        cold = None if warm is None else ~warm.flatten()  # (I,)
        return StudentOutput(hidden, self._table(), self.item_bias, self.item_encoder, cold)

    def _table(self) -> Tensor | Callable[[Tensor | None], Tensor]:
        """Return the output table, or what forms as much of it as a loss reads, where forming is dear."""
        encoder = self.output_encoder
        if not encoder.formed_by_need:
            return encoder(None)  # type: ignore[no-any-return]
        graph = torch.is_grad_enabled()

        def form(items: Tensor | None) -> Tensor:
            with torch.set_grad_enabled(graph):  # whoever asks first may need no gradient, and others do
                found: Tensor = encoder(items)
            return found

        return form

    @torch.no_grad()
    def score(self, history: Tensor, row_ids: Tensor | None = None) -> Tensor:
        """Return ``(B, I)`` scores after each history of ``(B, L)``, without gradient.

        With ``(B,)`` `row_ids`, what is known of the rows counts; `PAD` where nothing is.
        """
        hidden = self.encode(history, (history != PAD).sum(1), row_ids=row_ids)
        scores: Tensor = hidden @ self.output_encoder(None).T
        return scores if self.item_bias is None else scores.add_(self.item_bias)
