"""SASRec: self-attention over the history.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, https://arxiv.org/abs/1808.09781.

``variant="paper"`` is the network of the DROS and DLLM2Rec code; of E_s, the items' vectors, and P, the
positions':

    x = Dropout(E_s + P)                                     q = LN_1(x)
    a = softmax(q W_Q (x W_K)^T / sqrt(d / heads)) x W_V     y = a + q
    u = LN_2(y)       v = LN_f(u + Dropout(W_2 relu(W_1 u)))       h = LN_3(v)

``variant="modern"`` has pre-norm blocks, ``x + Attention(LN(x))`` then ``x + FFN(LN(x))``, and one norm at
the end.

=====================  =================  =====  ======  ===================================================
symbol                 name in code       paper  modern  source of the default
=====================  =================  =====  ======  ===================================================
d                      embedding_size     64     64      DLLM2Rec, section 5.1
blocks                 blocks             1      2       authors' code; SASRec
heads                  heads              1      2       authors' code; half of d is enough for one head
L                      max_length         10     50      DLLM2Rec's windows; SASRec on sparse data
dropout                dropout            0.1    0.2     DLLM2Rec, section 5.1; as usual on sparse data
dropout of weights     attention_dropout  0.1    0       authors' code; 0 lets the fused kernel run
width of W_1 over d    expansion          1      4       authors' code; Vaswani et al., 2017
activation             activation         relu   gelu    authors' code; common today
std of P at the start  position_std       1      0.02    authors' code (default of nn.Embedding); BERT
x = sqrt(d) E_s + P    scale_embeddings   no     yes     authors' code; SASRec's own code
=====================  =================  =====  ======  ===================================================

Where the authors' code differs from this file
----------------------------------------------
1. Their masks test ``sum(vector) == 0``. The sum of a fresh layer norm is zero up to rounding, so some real
   queries lost their attention. Here the mask comes from the lengths, and only the output is masked: with
   right padding, a causal position never sees a pad.
2. They divide the scores by sqrt(d) whatever the number of heads; here by sqrt(d / heads). The same for one
   head.
3. They compute all positions and cut out the last in a Python loop. `SASRec.last` runs the last block for one
   query a row.
4. They learn the key bias although the softmax cancels it. So does this file, to keep their parameter count.
5. They never call ``eval()``: dropout was on in their evaluation. Here it follows the module's mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from recdistill.students.base import Student
from recdistill.students.layers import (
    Activation,
    CausalAttention,
    Dropout,
    FeedForward,
    Packing,
    Variant,
    check_length,
    real_positions,
    take_last,
    variant_options,
)


@dataclass(frozen=True)
class Options:
    """The options of `SASRec` that a variant has defaults for."""

    blocks: int
    heads: int
    max_length: int
    dropout: float
    attention_dropout: float
    expansion: int
    activation: Activation
    position_std: float
    scale_embeddings: bool


_DEFAULTS: Final = {
    "paper": Options(1, 1, 10, 0.1, 0.1, 1, "relu", 1.0, False),
    "modern": Options(2, 2, 50, 0.2, 0.0, 4, "gelu", 0.02, True),
}


class PaperBlock(nn.Module):
    """The block of the DROS code: the residual goes around the attention from its normed queries.

    Parameters
    ----------
    size
        d.
    options
        As in `SASRec`.
    """

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention = CausalAttention(size, options.heads, options.attention_dropout, output=False)
        self.forward_norm = nn.LayerNorm(size)
        self.feed_forward = FeedForward(size, options.expansion * size, options.dropout, options.activation)
        self.output_norm = nn.LayerNorm(size)

    def forward(self, hidden: Tensor, packing: Packing | None) -> Tensor:
        """Return ``(B, L, d)`` for ``(B, L, d)``, or ``(T, d)`` for ``(T, d)`` with a packing."""
        queries = self.attention_norm(hidden)
        return self._transform(queries + self.attention(queries, hidden, packing))

    def last(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)``, the output at the last items."""
        query = self.attention_norm(take_last(hidden, lengths))
        return self._transform(query + self.attention.last(query, hidden, lengths))

    def _transform(self, mixed: Tensor) -> Tensor:
        normed = self.forward_norm(mixed)
        result: Tensor = self.output_norm(normed + self.feed_forward(normed))
        return result


class ModernBlock(nn.Module):
    """A pre-norm block: nothing stands on the residual path (Xiong et al., 2020).

    Parameters
    ----------
    size
        d.
    options
        As in `SASRec`.
    """

    def __init__(self, size: int, options: Options) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(size)
        self.attention = CausalAttention(size, options.heads, options.attention_dropout, output=True)
        self.dropout = Dropout(options.dropout)
        self.forward_norm = nn.LayerNorm(size)
        self.feed_forward = FeedForward(size, options.expansion * size, options.dropout, options.activation)

    def forward(self, hidden: Tensor, packing: Packing | None) -> Tensor:
        """Return ``(B, L, d)`` for ``(B, L, d)``, or ``(T, d)`` for ``(T, d)`` with a packing."""
        normed = self.attention_norm(hidden)
        return self._transform(hidden, self.attention(normed, normed, packing))

    def last(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)``, the output at the last items."""
        normed = self.attention_norm(hidden)
        mixed = self.attention.last(take_last(normed, lengths), normed, lengths)
        return self._transform(take_last(hidden, lengths), mixed)

    def _transform(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = hidden + self.dropout(mixed)
        result: Tensor = hidden + self.feed_forward(self.forward_norm(hidden))
        return result


class SASRec(Student):
    """Self-attention over the history. An option left at None takes its variant's default (table above).

    Parameters
    ----------
    embedding_size
        d; the hidden states have the same width.
    variant
        ``"paper"`` or ``"modern"``.
    blocks
        Number of blocks.
    heads
        Heads of the attention; divides d.
    max_length
        L, the longest history: there is one learned vector a position.
    dropout
        Of the embeddings, the feed-forward parts and, if modern, the attention's output.
    attention_dropout
        Of the attention weights.
    expansion
        Inner width of the feed-forward part over d.
    activation
        ``"relu"`` or ``"gelu"``.
    position_std
        Standard deviation of the position vectors at the start.
    scale_embeddings
        Whether the item vectors are multiplied by sqrt(d).

    Raises
    ------
    ConfigError
        `variant` does not exist, or `heads` does not divide `embedding_size`.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 64,
        variant: Variant = "paper",
        blocks: int | None = None,
        heads: int | None = None,
        max_length: int | None = None,
        dropout: float | None = None,
        attention_dropout: float | None = None,
        expansion: int | None = None,
        activation: Activation | None = None,
        position_std: float | None = None,
        scale_embeddings: bool | None = None,
    ) -> None:
        super().__init__()
        options = variant_options(
            _DEFAULTS,
            variant,
            blocks=blocks,
            heads=heads,
            max_length=max_length,
            dropout=dropout,
            attention_dropout=attention_dropout,
            expansion=expansion,
            activation=activation,
            position_std=position_std,
            scale_embeddings=scale_embeddings,
        )
        self.embedding_size = self.hidden_size = embedding_size
        self.max_length = options.max_length
        self.scale = embedding_size**0.5 if options.scale_embeddings else 1.0
        self.positions = nn.Parameter(torch.empty(options.max_length, embedding_size))
        nn.init.normal_(self.positions, std=options.position_std)
        self.dropout = Dropout(options.dropout)
        block: type[PaperBlock | ModernBlock] = PaperBlock if variant == "paper" else ModernBlock
        self.blocks = nn.ModuleList(block(embedding_size, options) for _ in range(options.blocks))
        self.final_norm = nn.LayerNorm(embedding_size)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, L, d)`` hidden states for ``(B, L, d)`` item vectors, zero at the pads."""
        hidden = self._start(embedded)
        packing = Packing.of(lengths, hidden.shape[1])
        if packing is not None:
            hidden = packing.pack(hidden)
        for block in self.blocks:
            hidden = block(hidden, packing)
        hidden = self.final_norm(hidden)
        if packing is not None:
            return packing.spread(hidden)
        masked: Tensor = hidden * real_positions(lengths, hidden.shape[1]).unsqueeze(-1)
        return masked

    def last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` hidden states of the last items; the last block runs for one query a row."""
        hidden = self._start(embedded)
        *blocks, final = self.blocks
        for block in blocks:
            hidden = block(hidden, None)
        result: Tensor = self.final_norm(final.last(hidden, lengths))  # type: ignore[operator]
        return result

    def _start(self, embedded: Tensor) -> Tensor:
        length = embedded.shape[1]
        check_length(length, self.max_length)
        start: Tensor = self.dropout(embedded * self.scale + self.positions[:length])
        return start
