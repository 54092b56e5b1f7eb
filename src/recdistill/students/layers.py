"""What the students share: variants, masks by length, dropout, and the parts of SASRec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
_PACK_BELOW = 0.7  # share of real positions below which moving rows costs less than computing pads


def real_positions(lengths: Tensor, length: int) -> Tensor:
    """Return ``(B, L)`` bool, True at the items; an empty history counts as one zero vector."""
    steps = torch.arange(length, device=lengths.device)
    return steps < lengths.clamp_min(1).unsqueeze(1)


def take_last(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return ``(B, H)``, the vectors of ``(B, L, H)`` at the last items."""
    batch, length, _ = hidden.shape
    starts = torch.arange(batch, device=lengths.device) * length
    return hidden.flatten(0, 1).index_select(0, starts + lengths.clamp_min(1) - 1)


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
            f"a history of {length} items is too long for this student. Allowed: at most {max_length}. "
            f"Give the last {max_length} items, or build the student with max_length={length}."
        )


@dataclass(frozen=True)
class Packing:
    """Where the T real positions of a ``(B, L)`` grid are, so that no work goes to pads.

    Attributes
    ----------
    shape
        ``(B, L)``.
    index
        ``(T,)`` int64, into the flattened grid.
    """

    shape: tuple[int, int]
    index: Tensor

    @classmethod
    def of(cls, lengths: Tensor, length: int) -> Packing | None:
        """Return the packing of a batch, or None where pads are too few, or shapes have to stay fixed."""
        if torch.compiler.is_compiling():
            return None
        index = real_positions(lengths, length).flatten().nonzero().squeeze(1)
        shape = (len(lengths), length)
        return cls(shape, index) if len(index) < _PACK_BELOW * shape[0] * length else None

    def pack(self, grid: Tensor) -> Tensor:
        """Return the ``(T, n)`` real rows of a ``(B, L, n)`` grid."""
        return grid.flatten(0, 1).index_select(0, self.index)

    def spread(self, packed: Tensor) -> Tensor:
        """Return ``(B, L, n)`` with the ``(T, n)`` rows at their places and zeros at the pads."""
        grid = packed.new_zeros(self.shape[0] * self.shape[1], packed.shape[1])
        return grid.index_copy(0, self.index, packed).view(*self.shape, -1)


class Dropout(nn.Module):
    """Dropout with 16 random bits a number on a CPU, where drawing the mask is most of its cost.

    `torch.nn.Dropout` takes five times as long there. The probability is rounded to a multiple of 1 / 65536.
    On other devices, and in a graph that is compiled or exported, this is torch's.

    Parameters
    ----------
    probability
        Share of the numbers that become zero, in [0, 1].
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ConfigError(f"dropout={probability}. Allowed: 0 to 1. Set student.options.dropout=0.1.")
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` with a share of them zero and the others scaled up; in evaluation unchanged."""
        dropped = round(self.probability * 65536)
        if not self.training or dropped == 0:
            return values
        if values.device.type != "cpu" or dropped == 65536 or torch.compiler.is_compiling():
            return F.dropout(values, self.probability)
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()].view(values.shape)
        kept = (bits >= dropped - 32768).to(values.dtype)
        return values * kept.mul_(65536 / (65536 - dropped))


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
        Dropout of the attention weights. Above 0, a CPU cannot use its fused kernel.
    output
        Whether a linear map follows the heads (Vaswani et al., 2017); the authors of DROS have none.

    Raises
    ------
    ConfigError
        `heads` does not divide `size`.
    """

    def __init__(self, size: int, heads: int, dropout: float, *, output: bool) -> None:
        super().__init__()
        if size % heads:
            raise ConfigError(
                f"heads={heads} does not divide embedding_size={size}. Allowed: a divisor of it. "
                "Set student.options.heads=1."
            )
        self.size = size
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.projection = nn.Linear(size, 3 * size)  # queries, keys, values
        self.output = nn.Linear(size, size) if output else nn.Identity()

    def forward(self, queries: Tensor, memory: Tensor, packing: Packing | None = None) -> Tensor:
        """Return the mixtures for queries and for the memory that keys and values come from.

        All are ``(B, L, d)``, or ``(T, d)`` with a packing.
        """
        parts = self._project(queries, memory)  # (..., 3 d)
        if packing is not None:
            parts = packing.spread(parts)
        query, key, value = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in parts.chunk(3, dim=-1)
        )  # (B, h, L, d / h)
        dropout = self.dropout.probability if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, L, d)
        result: Tensor = self.output(mixed if packing is None else packing.pack(mixed))
        return result

    def _project(self, queries: Tensor, memory: Tensor) -> Tensor:
        weight, bias = self.projection.weight, self.projection.bias
        if queries is memory:
            return F.linear(memory, weight, bias)
        query = F.linear(queries, weight[: self.size], bias[: self.size])
        return torch.cat([query, F.linear(memory, weight[self.size :], bias[self.size :])], dim=-1)

    def last(self, query: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` for the ``(B, d)`` query of the last item and the ``(B, L, d)`` memory.

        One query a row: the key map goes to the query and the value map to the mixture, so that neither is
        applied to all positions. The keys' bias adds the same to all scores of a row and falls out.
        """
        split = (3, self.heads, self.size // self.heads)
        weight_q, weight_k, weight_v = self.projection.weight.view(*split, self.size)  # (h, d / h, d) each
        bias_q, _, bias_v = self.projection.bias.view(split)  # (h, d / h) each
        projected = torch.einsum("bd,hsd->bhs", query, weight_q) + bias_q
        scores = torch.einsum("bhs,hsd->bhd", projected, weight_k) @ memory.mT  # (B, h, L)
        scores = scores * (self.size // self.heads) ** -0.5
        pads = ~real_positions(lengths, memory.shape[1])
        weights = self.dropout(scores.masked_fill(pads.unsqueeze(1), -torch.inf).softmax(-1))
        mixed = torch.einsum("bhd,hsd->bhs", weights @ memory, weight_v)
        result: Tensor = self.output((mixed + weights.sum(-1, keepdim=True) * bias_v).flatten(1))
        return result


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

    Raises
    ------
    ConfigError
        `activation` does not exist.
    """

    def __init__(self, size: int, inner: int, dropout: float, activation: Activation) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise unknown_name("activation", activation, _ACTIVATIONS)
        self.activation = activation
        self.expand = nn.Linear(size, inner)
        self.contract = nn.Linear(inner, size)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``(..., d)`` for ``(..., d)``."""
        inner = _ACTIVATIONS[self.activation](self.expand(hidden))
        result: Tensor = self.dropout(self.contract(inner))
        return result
