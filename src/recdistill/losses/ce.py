"""Cross-entropy over all items, without ever holding all scores.

    L = mean_s ( logsumexp_i f_si - f_sy ),    f = hidden table^T + bias

The scores of S rows and I items are S * I numbers, and autograd would hold them several times. Here the rows
are taken in chunks: the scores of a chunk become probabilities P in a buffer that is used again, and P
gives at once all that a backward pass could ask for (the way of Liger Kernel, https://arxiv.org/abs/2410.10989):

    grad hidden = (P - Y) table / S,    grad table = (P - Y)^T hidden / S,    grad bias = (P - Y)^T 1 / S

with Y the one-hot targets, which are scattered, never formed.

========  ==========  ======  ============================================================================
symbol    name        shape   default and its source
========  ==========  ======  ============================================================================
S, I                          rows and items
P         shares      (c, I)  c rows a chunk: 4 MiB on a CPU, which stays in its cache; 256 MiB elsewhere
========  ==========  ======  ============================================================================

Where the authors' code differs from this file
----------------------------------------------
1. Liger fuses the softmax in a Triton kernel. Here every pass is a torch call, so it runs on any device.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError, unknown_name
from recdistill.losses.base import Loss
from recdistill.products import rows_at_once
from recdistill.types import Batch, StudentOutput

Precision = Literal["float32", "bfloat16"]
_CHUNK_MIB = {"cpu": 4.0}
_CHUNK_MIB_ELSEWHERE = 256.0


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk_rows: int,
        dtype: torch.dtype,
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)  # of the sums over chunks
        h, E = hidden.to(dtype), table.to(dtype)
        buffer = h.new_empty(min(chunk_rows, len(h)), len(E))  # (c, I)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(h) if wanted else None
        grad_table = torch.zeros_like(table, dtype=exact) if wanted else None
        grad_bias = torch.zeros_like(bias, dtype=exact) if wanted and bias is not None else None
        total = hidden.new_zeros((), dtype=exact)
        for start in range(0, len(h), chunk_rows):
            rows = slice(start, start + chunk_rows)
            chosen = targets[rows].unsqueeze(1)
            scores = buffer[: len(chosen)]
            if bias is None:
                torch.mm(h[rows], E.T, out=scores)
            else:
                torch.addmm(bias.to(dtype), h[rows], E.T, out=scores)
            total += _soften_(scores, chosen)
            if grad_hidden is None or grad_table is None:
                continue
            scores.scatter_add_(1, chosen, scores.new_full(chosen.shape, -1.0))  # P - Y
            torch.mm(scores, E, out=grad_hidden[rows])
            _add_product_(grad_table, scores, h[rows])
            if grad_bias is not None:
                grad_bias += scores.sum(0)
        ctx.save_for_backward(grad_hidden, grad_table, grad_bias)
        return total / len(h)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table, grad_bias = ctx.saved_tensors
        step = gradient / len(grad_hidden)
        return (
            step * grad_hidden,
            step * grad_table,
            None if grad_bias is None else step * grad_bias,
            None,
            None,
            None,
        )


def _soften_(scores: Tensor, chosen: Tensor) -> Tensor:
    """Turn ``(c, I)`` scores into probabilities in place; return the chunk's summed cross-entropy.

    logsumexp = max f - log max P, and max P is at least 1 / I: finite where the target's own P underflows.
    """
    exact = torch.promote_types(scores.dtype, torch.float32)
    target_scores = scores.gather(1, chosen).to(exact)
    peaks = scores.amax(1, keepdim=True).to(exact)
    torch.softmax(scores, 1, out=scores)
    return (peaks - scores.amax(1, keepdim=True).to(exact).log() - target_scores).sum()


def _add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left^T right`` to `total`, whose precision may be higher than theirs."""
    if total.dtype == left.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right


def chunked_cross_entropy(
    hidden: Tensor,
    item_table: Tensor,
    item_bias: Tensor | None,
    targets: Tensor,
    *,
    chunk_mib: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the mean cross-entropy of S rows over I items, holding at most `chunk_mib` of scores.

    Parameters
    ----------
    hidden
        ``(S, H)``.
    item_table
        ``(I, H)``.
    item_bias
        ``(I,)`` or None.
    targets
        ``(S,)`` int64.
    chunk_mib
        Size of the buffer in MiB, at least one row; None: see the table of this module.
    dtype
        Of the products and the buffer; None: that of autocast where it is on, else that of `hidden`. The
        loss, and the sums over chunks, are never below float32.
    """
    device = hidden.device.type
    if dtype is None:
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if chunk_mib is None:
        chunk_mib = _CHUNK_MIB.get(device, _CHUNK_MIB_ELSEWHERE)
    chunk_rows = rows_at_once(chunk_mib * 2**20, dtype.itemsize * len(item_table))
    with torch.autocast(device, enabled=False):
        loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, item_table, item_bias, targets, chunk_rows, dtype
        )
    return loss


class CE(Loss):
    """Cross-entropy of the target over all items (softmax loss), chunked and fused.

    Parameters
    ----------
    dtype
        ``"float32"`` or ``"bfloat16"`` for products and scores, or None: as the training's precision says.
    chunk_mib
        Size of the score buffer in MiB, or None for the device's default.

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    """

    def __init__(self, *, dtype: Precision | None = None, chunk_mib: float | None = None) -> None:
        super().__init__()
        if dtype not in (None, "float32", "bfloat16"):
            raise unknown_name("dtype", str(dtype), ("float32", "bfloat16"))
        if chunk_mib is not None and chunk_mib <= 0:
            raise ConfigError(f"chunk_mib={chunk_mib}. Allowed: above 0. Set loss.options.chunk_mib=4.")
        self.dtype = dtype
        self.chunk_mib = chunk_mib

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        return chunked_cross_entropy(
            output.hidden,
            output.item_table,
            output.warm_bias,
            batch.targets,
            chunk_mib=self.chunk_mib,
            dtype=None if self.dtype is None else getattr(torch, self.dtype),
        )
