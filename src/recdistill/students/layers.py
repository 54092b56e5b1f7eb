"""What the students share: the mask by length, the last position, and SASRec's attention and feed-forward parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    D = TypeVar("D", bound=DataclassInstance)

Variant = Literal["paper", "modern"]
Activation = Literal["relu", "gelu"]
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


def real_positions(lengths: Tensor, length: int) -> Tensor:
    """Return ``(B, L)`` bool, True at the items; an empty history counts as one zero vector."""
    steps = torch.arange(length, device=lengths.device)
    return steps < lengths.clamp_min(1).unsqueeze(1)


def take_last(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return ``(B, H)``, the vectors of ``(B, L, H)`` at the last items."""
    rows = torch.arange(len(lengths), device=lengths.device)
    return hidden[rows, lengths.clamp_min(1) - 1]


def variant_options(defaults: Mapping[str, D], variant: str, **given: Any) -> D:
    """Return the defaults of a variant, with the options that were given (not None) in their place.

    Raises
    ------
    ConfigError
        `variant` is not in `defaults`.
    """
    if variant not in defaults:
        raise unknown_name("variant", variant, defaults)
    return replace(defaults[variant], **{name: value for name, value in given.items() if value is not None})


def check_length(length: int, max_length: int) -> None:
    """Refuse histories that are longer than the student can read.

    Raises
    ------
    ConfigError
        `length` exceeds `max_length`.
    """
    if length > max_length:
        raise ConfigError(
            f"a history of {length} items is too long for this student. Allowed: at most max_length={max_length}. "
            f"Give the last {max_length} items, or build the student with max_length={length}."
        )


class CausalAttention(nn.Module):
    """Multi-head attention of each position to itself and the positions before it.

    Right padding and causality make a key mask needless: no item ever comes after a pad.

    Parameters
    ----------
    size
        d, width of queries and memory.
    heads
        Number of heads; divides d.
    dropout
        Dropout of the attention weights.
    output
        Whether a linear map follows the concatenated heads (Vaswani et al., 2017); the authors of DROS have none.
    """

    def __init__(self, size: int, heads: int, dropout: float, *, output: bool) -> None:
        super().__init__()
        if size % heads:
            raise ConfigError(
                f"heads={heads} does not divide embedding_size={size}. Allowed: a divisor. Set student.heads=1."
            )
        self.size = size
        self.heads = heads
        self.dropout = dropout
        self.projection = nn.Linear(size, 3 * size)  # queries, keys, values
        self.output = nn.Linear(size, size) if output else nn.Identity()

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return ``(B, L, d)`` for ``(B, L, d)`` queries and the memory that keys and values come from."""
        split = (*queries.shape[:2], self.heads, self.size // self.heads)
        if queries is memory:
            query, key, value = self.projection(memory).chunk(3, dim=-1)
        else:
            weight, bias = self.projection.weight, self.projection.bias
            query = F.linear(queries, weight[: self.size], bias[: self.size])
            key, value = F.linear(memory, weight[self.size :], bias[self.size :]).chunk(2, dim=-1)
        query, key, value = (part.view(split).transpose(1, 2) for part in (query, key, value))  # (B, h, L, d/h)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def last(self, query: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` for the ``(B, d)`` query of the last item.

        One query a row: the key map goes to the query and the value map to the mixture, so that neither is
        applied to all positions. The keys' bias adds the same to all scores of a row and falls out.
        """
        split = (3, self.heads, self.size // self.heads)
        weight_q, weight_k, weight_v = self.projection.weight.view(*split, self.size)  # (h, d/h, d)
        bias_q, _, bias_v = self.projection.bias.view(split)  # (h, d/h)
        projected = torch.einsum("bd,hsd->bhs", query, weight_q) + bias_q
        scores = torch.einsum("bhs,hsd->bhd", projected, weight_k) @ memory.mT  # (B, h, L)
        scores = scores * (self.size // self.heads) ** -0.5
        pads = ~real_positions(lengths, memory.shape[1])
        weights = scores.masked_fill(pads.unsqueeze(1), -torch.inf).softmax(-1)
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = torch.einsum("bhd,hsd->bhs", weights @ memory, weight_v)
        return self.output((mixed + weights.sum(-1, keepdim=True) * bias_v).flatten(1))


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, at each position.

    Parameters
    ----------
    size
        d, width in and out.
    inner
        Width between the maps.
    dropout
        Dropout of the result.
    activation
        ``"relu"`` or ``"gelu"``.
    """

    def __init__(self, size: int, inner: int, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.expand = nn.Linear(size, inner)
        self.contract = nn.Linear(inner, size)
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``(..., d)`` for ``(..., d)``."""
        return self.dropout(self.contract(ACTIVATIONS[self.activation](self.expand(hidden))))
