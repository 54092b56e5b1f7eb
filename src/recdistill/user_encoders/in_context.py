"""A small causal decoder that reads examples: root-mean-square norm, rotary positions, gated feed-forward.

Of tokens x_1 .. x_T, in blocks that are applied one after the other::

    y = x + W_O softmax(mask + R(q) R(k)^T / sqrt(d / heads)) v          with q, k, v of rms(x)           # (1)
    z = y + W_2 (silu(W_1 rms(y)) * W_3 rms(y))                                                           # (2)
    rms(x) = g * x / sqrt(mean(x^2) + eps)                                                               # (3)

R turns pairs of numbers by an angle that grows with the position (Su et al., 2021, arXiv 2104.09864), the norm is
Zhang and Sennrich's (2019, arXiv 1910.07467), the gate Shazeer's (2020, arXiv 2002.05202).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.errors import ConfigError
from recdistill.students.layers import Dropout

_BASE = 10000.0  # of the rotary angles, as in the paper
_EPS = 1e-6


class _Turned(torch.autograd.Function):
    """Pairs of numbers turned; the gradient is turned back. One pass over memory each way, where autograd needs six."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(values, cosine, sine)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _turned(gradient, cosine, -sine), None, None


def _turned(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = values.shape[-1] // 2
    first, second = values[..., :half], values[..., half:]
    found = torch.empty_like(values)
    found[..., :half] = torch.addcmul(first * cosine, second, sine, value=-1)
    found[..., half:] = torch.addcmul(second * cosine, first, sine)
    return found


def rotated(values: Tensor, places: Tensor) -> Tensor:
    """Return ``(S, T, h, n)`` values turned by their ``(T,)`` places; n is even."""
    half = values.shape[-1] // 2
    speeds = _BASE ** (-torch.arange(half, device=values.device) / half)
    angles = (places[:, None] * speeds).unsqueeze(1)  # (T, 1, n / 2)
    turned: Tensor = _Turned.apply(values, angles.cos().to(values.dtype), angles.sin().to(values.dtype))  # type: ignore[no-untyped-call]
    return turned


class DecoderBlock(nn.Module):
    """Eq. (1) and (2).

    Parameters
    ----------
    size
        d.
    heads
        Divides d into even parts.
    dropout
        Of what either half adds.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        inner = -(-8 * size // 3 // 8) * 8  # two thirds of 4 d, in eights: as many weights as an ungated one
        self.heads, self.dropped = heads, Dropout(dropout)
        self.before_attention, self.before_gate = nn.RMSNorm(size, eps=_EPS), nn.RMSNorm(size, eps=_EPS)
        self.projection = nn.Linear(size, 3 * size, bias=False)  # queries, keys, values
        self.output = nn.Linear(size, size, bias=False)
        self.expand = nn.Linear(size, 2 * inner, bias=False)  # W_1, W_3
        self.contract = nn.Linear(inner, size, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return ``(S, T, d)`` for ``(S, T, d)`` tokens and the ``(S, T, T)`` bool mask of what may be read.

        With ``(W,)`` `wanted` places, only theirs are formed: ``(S, W, d)``.
        """
        places, normed = torch.arange(tokens.shape[1], device=tokens.device), self.before_attention(tokens)
        asking, asked = normed, places
        if wanted is not None:
            tokens, asking, mask, asked = tokens[:, wanted], normed[:, wanted], mask[:, wanted], wanted
        # maps one by one: the gradient of a part of one product would be copied into that of the whole
        maps = self.projection.weight.chunk(3)
        query, key, value = (
            F.linear(read, one).view(*read.shape[:2], self.heads, -1)
            for read, one in zip((asking, normed, normed), maps, strict=True)
        )
        query, key, value = (
            part.transpose(1, 2) for part in (rotated(query, asked), rotated(key, places), value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask.unsqueeze(1))
        tokens = tokens + self.dropped(self.output(mixed.transpose(1, 2).flatten(2)))
        gate, up = self.expand.weight.chunk(2)
        normed = self.before_gate(tokens)
        added: Tensor = self.dropped(self.contract(F.silu(F.linear(normed, gate)) * F.linear(normed, up)))
        return tokens + added


class InContextDecoder(nn.Module):
    """Blocks and a last norm.

    Parameters
    ----------
    size
        d.
    blocks
        How many, at least 1.
    heads
        Divides d into parts of an even number.
    dropout
        In [0, 1).

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    def __init__(self, size: int, *, blocks: int = 2, heads: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        if blocks < 1 or heads < 1 or size % (2 * heads) or not 0 <= dropout < 1:
            raise ConfigError(
                f"a decoder of width {size} with blocks={blocks}, heads={heads}, dropout={dropout} is not possible. "
                f"Allowed: blocks from 1, heads that divide {size} into even parts, dropout in [0, 1). Set "
                "llm-cf.heads=1."
            )
        self.blocks = nn.ModuleList([DecoderBlock(size, heads, dropout) for _ in range(blocks)])
        self.last = nn.RMSNorm(size, eps=_EPS)

    def forward(self, tokens: Tensor, there: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Return ``(S, T, d)`` states, or those at the wanted places alone.

        Parameters
        ----------
        tokens
            ``(S, T, d)``.
        there
            ``(S, T)`` bool; a token that is not there is read by none but itself.
        wanted
            ``(W,)`` places whose states are asked for, or None: all. The last block forms no others.
        """
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        own = steps[:, None] == steps
        mask = (steps[:, None] >= steps) & (there[:, None, :] | own)  # (S, T, T)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, mask, wanted if number == last else None)
        states: Tensor = self.last(tokens)
        return states
