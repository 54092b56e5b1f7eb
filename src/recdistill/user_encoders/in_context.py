"""A small causal decoder that reads examples: root-mean-square norm, rotary positions, gated feed-forward.

Of tokens x_1 .. x_T, in blocks that are applied one after the other::

    y = x + W_O softmax(mask + R(q) R(k)^T / sqrt(d / heads)) v          with q, k, v of rms(x)           # (1)
    z = y + W_2 (silu(W_1 rms(y)) * W_3 rms(y))                                                           # (2)
    rms(x) = g * x / sqrt(mean(x^2) + eps)                                                               # (3)

R turns pairs of numbers by an angle that grows with the position (Su et al., 2021, arXiv 2104.09864), the norm is
Zhang and Sennrich's (2019, arXiv 1910.07467), the gate Shazeer's (2020, arXiv 2002.05202).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.errors import ConfigError

_BASE = 10000.0  # of the rotary angles, as in the paper
_EPS = 1e-6


def rotated(values: Tensor) -> Tensor:
    """Return ``(S, h, T, n)`` values turned by their position 0 .. T-1; n is even."""
    half = values.shape[-1] // 2
    speeds = _BASE ** (-torch.arange(half, device=values.device) / half)
    angles = torch.arange(values.shape[2], device=values.device)[:, None] * speeds  # (T, n / 2)
    cosine, sine = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    first, second = torch.split(values, half, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


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
        self.heads, self.dropout = heads, dropout
        self.before_attention, self.before_gate = nn.RMSNorm(size, eps=_EPS), nn.RMSNorm(size, eps=_EPS)
        self.projection = nn.Linear(size, 3 * size, bias=False)  # queries, keys, values
        self.output = nn.Linear(size, size, bias=False)
        self.expand = nn.Linear(size, 2 * inner, bias=False)  # W_1, W_3
        self.contract = nn.Linear(inner, size, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return ``(S, T, d)`` for ``(S, T, d)`` tokens and the ``(S, 1, T, T)`` bool mask of what may be read."""
        parts = self.projection(self.before_attention(tokens)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(rotated(query), rotated(key), value, attn_mask=mask)
        tokens = tokens + self._dropped(self.output(mixed.transpose(1, 2).flatten(2)))
        gate, values = self.expand(self.before_gate(tokens)).chunk(2, dim=-1)
        return tokens + self._dropped(self.contract(F.silu(gate) * values))

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


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

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Return ``(S, T, d)`` states.

        Parameters
        ----------
        tokens
            ``(S, T, d)``.
        there
            ``(S, T)`` bool; a token that is not there is read by none but itself.
        """
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        own = steps[:, None] == steps
        mask = (steps[:, None] >= steps) & (there[:, None, :] | own)  # (S, T, T)
        for block in self.blocks:
            tokens = block(tokens, mask.unsqueeze(1))
        states: Tensor = self.last(tokens)
        return states
