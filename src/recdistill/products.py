"""Matrix products in the shapes that strategies and losses need, and that a CPU is fast at.

Scores of a few items a row do not need the vectors of these items side by side: gathering them makes an ``(S, n, H)``
array, and the backward pass a second one. At 512 rows, 80 items and 128 numbers an item that takes 27 ms on one core
where this takes 5 (benchmarks/bench_products.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_WIDE = 32  # from this many items a row on, a batched matrix product beats multiply-and-sum
_FEW = 8  # from this many on, what this file is about pays
_TILE = 16  # rows a kernel takes at once: a product of 60 rows takes 1.4 times as long a row as one of 64
_SUM = 0  # how `embedding_bag` numbers its modes


def rows_at_once(budget: float, row_bytes: int) -> int:
    """Return how many rows of `row_bytes` bytes fit a budget in bytes, whole tiles where several do; at least 1."""
    rows = max(1, int(budget // max(1, row_bytes)))
    return rows if rows < _TILE else rows - rows % _TILE


def listed_products(hidden: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """Return ``(S, n)``, the products of each row's hidden state with the vectors of its items.

    Parameters
    ----------
    hidden
        ``(S, H)``.
    table
        ``(I, H)``.
    items
        ``(S, n)`` int64 in ``[0, I)``, repeats allowed.
    """
    lean = (
        items.shape[1] >= _FEW
        and hidden.device.type == "cpu"
        and hidden.dtype == table.dtype == torch.float32
    )
    if lean and len(items) and not torch.is_autocast_enabled("cpu"):
        return _ListedProducts.apply(hidden, table, items)  # type: ignore[no-any-return, no-untyped-call]
    vectors = table[items]  # (S, n, H)
    if items.shape[1] < _WIDE:
        return (vectors * hidden.unsqueeze(1)).sum(-1)
    return (vectors @ hidden.unsqueeze(-1)).squeeze(-1)


class _ListedProducts(torch.autograd.Function):
    """The items of a row are a bag: its products are the gradients of a weighted sum with respect to its weights.

    The way back has two such sums: of the items' vectors over each row, and of the rows' states over each item.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, items: Tensor) -> Tensor:
        hidden, table = hidden.contiguous(), table.contiguous()
        ctx.save_for_backward(hidden, table, items)
        rows, width = items.shape
        starts = torch.arange(0, rows * width, width)
        owner = torch.arange(rows).repeat_interleave(width)
        products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            hidden, table, items.flatten(), starts, owner, _SUM
        )
        return products.view(rows, width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, table, items = ctx.saved_tensors
        rows, width = items.shape
        flat, weights = items.flatten(), gradient.flatten()
        of_hidden = of_table = None
        if ctx.needs_input_grad[0]:
            starts = torch.arange(0, rows * width, width)
            of_hidden = embedding_bag(flat, table, starts, mode="sum", per_sample_weights=weights)
        if ctx.needs_input_grad[1]:
            order = flat.argsort()  # items one after the other, each with the rows that list it
            counts = torch.bincount(flat, minlength=len(table))
            owner = order.div(width, rounding_mode="floor")
            of_table = embedding_bag(
                owner, hidden, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights[order]
            )
        return of_hidden, of_table, None
