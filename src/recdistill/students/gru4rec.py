"""GRU4Rec: a recurrent network over the history.

Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016,
https://arxiv.org/abs/1511.06939.

``variant="paper"`` is the network of the DROS and DLLM2Rec code: one GRU from d to d, whose last hidden
state goes to the head. ``variant="modern"`` adds dropout on the item vectors and a layer norm on the hidden
states.

=======  ==============  =====  ======  ==============================================
symbol   name in code    paper  modern  source of the default
=======  ==============  =====  ======  ==============================================
d        embedding_size  64     64      DLLM2Rec, section 5.1
layers   layers          1      1       authors' code; Hidasi et al.
L        max_length      10     50      DLLM2Rec's windows; the same as SASRec's
dropout  dropout         0      0.2     the authors' GRU has none; the same as SASRec's
norm     norm            no     yes     authors' code; keeps tied scores in scale
=======  ==============  =====  ======  ==============================================

Where the authors' code differs from this file
----------------------------------------------
1. They reshape the hidden states of all layers to ``(layers * B, d)``, which is wrong for more than one
   layer. Here the last layer answers.
2. They pack the histories. A GRU reads from old to new, so a pad on the right comes after everything that
   counts; here the padded batch is read as it is and the output is masked, which also exports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from recdistill.students.base import Student
from recdistill.students.layers import (
    Dropout,
    Variant,
    check_length,
    real_positions,
    take_last,
    variant_options,
)


@dataclass(frozen=True)
class _Defaults:
    layers: int
    max_length: int
    dropout: float
    norm: bool


_DEFAULTS: Final = {"paper": _Defaults(1, 10, 0.0, False), "modern": _Defaults(1, 50, 0.2, True)}


class GRU4Rec(Student):
    """A GRU over the history. An option left at None takes its variant's default (table above).

    Parameters
    ----------
    embedding_size
        d; the hidden states have the same width.
    variant
        ``"paper"`` or ``"modern"``.
    layers
        Number of GRU layers; the last one answers.
    max_length
        L, the longest history it accepts.
    dropout
        Of the item vectors, and between layers.
    norm
        Whether a layer norm follows.

    Raises
    ------
    ConfigError
        `variant` does not exist.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 64,
        variant: Variant = "paper",
        layers: int | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        norm: bool | None = None,
    ) -> None:
        super().__init__()
        options = variant_options(
            _DEFAULTS, variant, layers=layers, max_length=max_length, dropout=dropout, norm=norm
        )
        self.embedding_size = self.hidden_size = embedding_size
        self.max_length = options.max_length
        self.dropout = Dropout(options.dropout)
        between = options.dropout if options.layers > 1 else 0.0
        self.gru = nn.GRU(embedding_size, embedding_size, options.layers, batch_first=True, dropout=between)
        self.norm = nn.LayerNorm(embedding_size) if options.norm else nn.Identity()

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, L, d)`` hidden states for ``(B, L, d)`` item vectors, zero at the pads."""
        hidden: Tensor = self.norm(self._states(embedded))
        return hidden * real_positions(lengths, embedded.shape[1]).unsqueeze(-1)

    def last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` hidden states of the last items."""
        last: Tensor = self.norm(take_last(self._states(embedded), lengths))
        return last

    def _states(self, embedded: Tensor) -> Tensor:
        check_length(embedded.shape[1], self.max_length)
        states: Tensor = self.gru(self.dropout(embedded))[0]
        return states
