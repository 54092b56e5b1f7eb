"""Free vectors of items, learned from behaviour, that a cold item does not have.

Training can teach the free vector of an item that it never sees one thing only: that the item is never the answer.
Held at 0 it leaves the item's place to what is known from its text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding


def warm_items(cold: Any) -> Tensor | None:
    """Return ``(I, 1)`` bool, the items that have a free vector; None where all do.

    Parameters
    ----------
    cold
        ``(I,)`` bool, items without any training event, or None: there are none.
    """
    if cold is None:
        return None
    warm = ~torch.as_tensor(cold, dtype=torch.bool)
    return None if bool(warm.all()) else warm.unsqueeze(1)


def draw_offsets(item_count: int, size: int, std: float, warm: Tensor | None) -> nn.Parameter:
    """Return ``(I, size)`` from a normal distribution, 0 for cold items."""
    drawn = torch.randn(item_count, size) * std
    return nn.Parameter(drawn if warm is None else drawn * warm)


def offsets_of(offsets: Tensor, warm: Tensor | None, items: Tensor | None) -> Tensor:
    """Return ``(n, size)`` free vectors of ``(n,)`` items, or of all; a cold item's is 0 and takes no gradient."""
    chosen = offsets if items is None else embedding(items, offsets)
    if warm is None:
        return chosen
    return chosen * (warm if items is None else warm[items])
