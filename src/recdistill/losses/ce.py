"""Cross-entropy over all items, without ever holding all scores.

    L = mean_s ( logsumexp_i f_si - f_sy ),    f = hidden @ table^T + bias

The scores of S rows and I items are S * I numbers, and autograd would hold them several times. Here rows are taken
in chunks: their scores become probabilities P in a buffer that is used again, and P gives at once all that a backward
pass could ask for (as in Liger Kernel, https://arxiv.org/abs/2410.10989):

    grad hidden = (P - Y) table / S,    grad table = (P - Y)^T hidden / S,    grad bias = (P - Y)^T 1 / S

with Y the one-hot targets, which are gathered and scattered, never formed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.losses.base import Loss
from recdistill.types import Batch, StudentOutput


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, table, bias, targets, chunk):  # type: ignore[no-untyped-def]
        S, I = len(hidden), len(table)
        grad_hidden = torch.empty_like(hidden)
        grad_table = torch.zeros_like(table)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        loss = hidden.new_zeros(())
        for start in range(0, S, chunk):
            h, y = hidden[start:start+chunk], targets[start:start+chunk, None]
            f = h @ table.T if bias is None else torch.addmm(bias, h, table.T)
            fy = f.gather(1, y)
            loss += (f.logsumexp(1, keepdim=True) - fy).sum()
            P = f.softmax(1)
            P.scatter_add_(1, y, -torch.ones_like(fy))
            P.div_(S)
            grad_hidden[start:start+chunk] = P @ table
            grad_table.addmm_(P.T, h)
            if grad_bias is not None:
                grad_bias += P.sum(0)
        ctx.save_for_backward(grad_hidden, grad_table, grad_bias)
        return loss / S

    @staticmethod
    def backward(ctx, g):  # type: ignore[no-untyped-def]
        a, b, c = ctx.saved_tensors
        return a * g, b * g, None if c is None else c * g, None, None


class CE(Loss):
    """Cross-entropy over all items."""

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        return _ChunkedCrossEntropy.apply(output.hidden, output.item_table, output.item_bias, batch.targets, 512)
