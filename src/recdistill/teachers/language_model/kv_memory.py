"""Keys and values that a causal language model remembers, with room for the steps to come."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from recdistill.errors import MissingExtraError


def joined_memory(memory: Any, parts: list[Any], rows: list[Tensor], shared: int, total: int) -> Any:
    """Fill an empty cache with those of groups of prompts, and return it.

    Parameters
    ----------
    memory
        An empty cache of growing layers.
    parts
        Caches of the groups, with the same `shared` columns first.
    rows
        Which rows of the whole each group is.
    shared
        Columns that stay first; the others of a group become the last ones.
    total
        Columns of the whole.
    """
    for index in range(len(parts[0].layers)):
        layer = memory.layer_class_to_replicate()
        found = [part.layers[index] for part in parts]
        layer.adopt(
            _joined([part.keys for part in found], rows, shared, total),
            _joined([part.values for part in found], rows, shared, total),
            total,
        )
        memory.layers.append(layer)
    return memory


def _joined(parts: list[Tensor], rows: list[Tensor], shared: int, total: int) -> Tensor:
    """Return ``(B, heads, ≥ total, D)``; what no group fills is zero, because it is masked, not left out."""
    count = sum(map(len, parts))
    whole = parts[0].new_zeros((count, parts[0].shape[1], total + _slack(total), parts[0].shape[3]))
    for part, at in zip(parts, rows, strict=True):
        width = part.shape[2] - shared
        whole[at, :, :shared] = part[:, :, :shared]
        whole[at, :, total - width : total] = part[:, :, shared:]
    return whole


@functools.cache
def growing_layer() -> type[Any]:
    """Return a cache layer that has room for steps to come, so that a step does not copy what is there."""
    try:
        from transformers.cache_utils import DynamicLayer
    except ImportError:
        raise MissingExtraError("transformers 4.56 or newer", "llm") from None

    class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
        """`keys` and `values` are the filled parts of `room`."""

        room: tuple[Tensor, Tensor] | None = None

        def update(
            self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            old = (self.keys, self.values) if self.is_initialized else (None, None)
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            filled = 0 if old[0] is None or not old[0].numel() else old[0].shape[-2]
            total = filled + key_states.shape[-2]
            room = self.room
            if room is None or room[0].shape[0] != len(key_states) or room[0].shape[-2] < total:
                room = self.room = (_room(key_states, total), _room(value_states, total))
                for new, before in zip(room, old, strict=True):
                    if filled and before is not None:
                        new[:, :, :filled] = before
            room[0][:, :, filled:total], room[1][:, :, filled:total] = key_states, value_states
            self.keys, self.values = room[0][:, :, :total], room[1][:, :, :total]
            return self.keys, self.values

        def adopt(self, keys: Tensor, values: Tensor, filled: int) -> None:
            """Take rooms whose first `filled` columns are filled."""
            self.lazy_initialization(keys, values)
            self.room = (keys, values)
            self.keys, self.values = keys[:, :, :filled], values[:, :, :filled]

        def reorder_cache(self, beam_idx: Any) -> None:
            keys, values = self.keys, self.values
            if keys is None or values is None or not keys.numel():
                return
            filled, found = keys.shape[-2], []
            for part in (keys, values):
                new = part.new_empty(
                    (len(beam_idx), *part.shape[1:2], filled + _slack(filled), part.shape[3])
                )
                torch.index_select(part, 0, beam_idx, out=new[:, :, :filled])
                found.append(new)
            self.adopt(found[0], found[1], filled)

    return GrowingLayer


def _room(like: Tensor, total: int) -> Tensor:
    batch, heads, _, width = like.shape
    return like.new_empty((batch, heads, total + _slack(total), width))


def _slack(total: int) -> int:
    """Return how many columns are kept free for the steps to come."""
    return total // 4 + 16
