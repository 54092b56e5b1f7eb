"""Rows of a large fixed table times a small learned matrix, without the ``(n, D)`` gathered copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # of gathered rows held at a time


def project_rows(table: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    """Return ``(n, d)`` float32 ``table[rows] @ weight.T``; the gradient goes to `weight` alone.

    On a CPU this takes little longer than its two matrix products (29 against 26 ms for 2,074 rows of 4,096
    numbers), where a gather, kept for the backward pass, takes 46 ms. The products are computed in the
    table's number format.

    Parameters
    ----------
    table
        ``(I, D)``, fixed, float32 or bfloat16.
    weight
        ``(d, D)`` float32.
    rows
        ``(n,)`` int64, best without repetition, or None for the whole table.
    """
    return _ProjectRows.apply(table, weight, rows)  # type: ignore[no-any-return, no-untyped-call]


class _ProjectRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
        ctx.save_for_backward(table, rows)
        flat = weight.detach().to(table.dtype).T  # (D, d)
        if rows is None:
            return (table @ flat).float()
        result = torch.empty((len(rows), weight.shape[0]), dtype=table.dtype, device=table.device)
        for part, gathered in _gathered(table, rows):
            torch.mm(gathered, flat, out=result[part])
        return result.float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        table, rows = ctx.saved_tensors
        grad = grads[0].to(table.dtype)  # (n, d)
        if rows is None:
            return None, (grad.T @ table).float(), None
        total = torch.zeros((grad.shape[1], table.shape[1]), device=table.device)  # (d, D) float32
        for part, gathered in _gathered(table, rows):
            if table.dtype == torch.float32:
                total.addmm_(grad[part].T, gathered)
            else:
                total += grad[part].T @ gathered
        return None, total, None


def _gathered(table: Tensor, rows: Tensor) -> Any:
    """Yield slices of `rows` with their ``(c, D)`` rows of the table, in one buffer that is used again."""
    budget = _CHUNK_BYTES.get(table.device.type, _CHUNK_BYTES["cuda"])
    chunk = max(1, min(len(rows), budget // (table.shape[1] * table.element_size())))
    buffer = torch.empty((chunk, table.shape[1]), dtype=table.dtype, device=table.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, min(start + chunk, len(rows)))
        gathered = buffer[: part.stop - start]
        torch.index_select(table, 0, rows[part], out=gathered)
        yield part, gathered
