"""Sums over the whole catalogue of a student's scores, with gradients, holding a few rows at a time.

A loss that needs the log-sum-exp over all items needs S x I scores, but never all of them at once. The forward
pass keeps the S sums; the backward pass computes the scores of a few rows anew, in a buffer that stays in the
processor's cache. That is one matrix product more than keeping everything, and less time on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recdistill.products import rows_at_once
from recdistill.strategies.listwise import NOTHING
from recdistill.types import PAD, StudentOutput

CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor | None, left_out: Tensor, dtype: torch.dtype
    ) -> Tensor:
        h, E = hidden.to(dtype), table.to(dtype)
        sums = torch.empty(len(h), device=h.device)
        for rows in row_chunks(h, len(E)):
            scores = _scores(h[rows], E, bias, left_out[rows])  # (c, I)
            sums[rows] = scores.logsumexp(1)
        sums.clamp_min_(NOTHING)
        ctx.save_for_backward(h, E, bias, left_out, sums)
        ctx.dtypes = hidden.dtype, table.dtype
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, E, bias, left_out, sums = ctx.saved_tensors

        found = _Gradients(h, E, bias)
        for rows in row_chunks(h, len(E)):
            scores = _scores(h[rows], E, bias, left_out[rows])
            shares = scores.sub_(sums[rows].unsqueeze(1)).exp_()  # (c, I), 0 where left out
            found.add(rows, shares.mul_(gradient[rows].unsqueeze(1)))
        return *found.results(ctx.dtypes), None, None


class _ListAndRest(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        items: Tensor,
        targets: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        h, E = hidden.to(dtype), table.to(dtype)
        listed = torch.empty(items.shape, device=h.device)
        rest = torch.empty(len(h), device=h.device)
        ranks = None if targets is None else torch.empty_like(targets)
        for rows in row_chunks(h, len(E)):
            scores = _scores(h[rows], E, bias)  # (c, I)
            listed[rows] = scores.gather(1, items[rows].clamp_min(0))
            if targets is not None and ranks is not None:
                ranks[rows] = (scores >= scores.gather(1, targets[rows, None])).sum(1)
            rest[rows] = _without(scores, items[rows], -torch.inf).logsumexp(1)
        rest.clamp_min_(NOTHING)
        ctx.save_for_backward(h, E, bias, items, rest)
        ctx.dtypes = hidden.dtype, table.dtype
        if ranks is not None:
            ctx.mark_non_differentiable(ranks)
        return listed, rest, ranks

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_listed: Tensor, of_rest: Tensor, of_ranks: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        h, E, bias, items, rest = ctx.saved_tensors
        of_listed = of_listed.masked_fill(items == PAD, 0.0)

        found = _Gradients(h, E, bias)
        for rows in row_chunks(h, len(E)):
            scores = _scores(h[rows], E, bias)
            part = _without(scores.sub_(rest[rows].unsqueeze(1)).exp_(), items[rows], 0.0)
            part.mul_(of_rest[rows].unsqueeze(1))
            found.add(rows, part.scatter_add_(1, items[rows].clamp_min(0), of_listed[rows]))  # (c, I)
        return *found.results(ctx.dtypes), None, None, None


class _Divergence(torch.autograd.Function):
    """Both passes need the softmax of student and teacher, so the gradients of the plain sum are formed at once.

    They only have to be scaled where every row counts the same, as in a mean; else the backward pass begins anew.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        teacher: Callable[[slice], Tensor],
        temperature: float,
        dtype: torch.dtype,
    ) -> Tensor:
        h, E = hidden.to(dtype), table.to(dtype)
        values = torch.empty(len(h), device=h.device)
        found = _Gradients(h, E, bias) if any(ctx.needs_input_grad) else None
        for rows in row_chunks(h, len(E)):
            goal = (teacher(rows) / temperature).log_softmax(1)  # (c, I)
            guess = (_scores(h[rows], E, bias) / temperature).log_softmax(1)
            shares = goal.exp()
            values[rows] = (shares * goal.sub_(guess)).sum(1)
            if found is not None:
                found.add(rows, guess.exp_().sub_(shares).div_(temperature))
        ctx.save_for_backward(h, E, bias)
        ctx.dtypes, ctx.found = (hidden.dtype, table.dtype), found
        ctx.teacher, ctx.temperature = teacher, temperature
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        h, E, bias = ctx.saved_tensors
        found: _Gradients = ctx.found
        if len(gradient) and bool((gradient == gradient[0]).all()):
            return *found.results(ctx.dtypes, gradient[0]), None, None, None
        found = _Gradients(h, E, bias)
        for rows in row_chunks(h, len(E)):
            guess: Tensor = (_scores(h[rows], E, bias) / ctx.temperature).softmax(1)
            shares = guess.sub_((ctx.teacher(rows) / ctx.temperature).softmax(1)).div_(ctx.temperature)
            found.add(rows, shares.mul_(gradient[rows].unsqueeze(1)))
        return *found.results(ctx.dtypes), None, None, None


class _Gradients:
    """Gradients of hidden states, table and bias, from those of the scores of a few rows at a time."""

    def __init__(self, h: Tensor, E: Tensor, bias: Tensor | None) -> None:
        self.h, self.E = h, E
        self.hidden = torch.empty_like(h)
        self.table = torch.zeros(E.shape, device=E.device)
        self.bias = None if bias is None else torch.zeros(len(E), device=E.device)

    def add(self, rows: slice, part: Tensor) -> None:
        """Take in the ``(c, I)`` float32 gradients of the scores of some rows."""
        if self.bias is not None:
            self.bias += part.sum(0)
        part = part.to(self.h.dtype)
        torch.mm(part, self.E, out=self.hidden[rows])
        if part.dtype == self.table.dtype:
            self.table.addmm_(part.T, self.h[rows])
        else:
            self.table += part.T @ self.h[rows]

    def results(
        self, dtypes: tuple[torch.dtype, torch.dtype], scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients in the types of hidden states and table, times a scalar."""
        hidden, table, bias = self.hidden, self.table, self.bias
        if scale is not None:
            hidden, table = hidden * scale.to(hidden.dtype), table * scale
            bias = None if bias is None else bias * scale
        return hidden.to(dtypes[0]), table.to(dtypes[1]), bias


def _scores(hidden: Tensor, table: Tensor, bias: Tensor | None, left_out: Tensor | None = None) -> Tensor:
    """Return ``(c, I)`` float32 scores, minus infinity at the items that are left out."""
    scores: Tensor = (hidden @ table.T).float()
    if bias is not None:
        scores += bias
    if left_out is None:
        return scores
    row, column = (left_out != PAD).nonzero(as_tuple=True)
    scores[row, left_out[row, column]] = -torch.inf
    return scores


def _without(values: Tensor, items: Tensor, value: float) -> Tensor:
    """Write a value at each row's ``(c, M)`` items of ``(c, I)`` values, and return them; `PAD` is nowhere."""
    first = items.amax(1, keepdim=True)  # where a list is shorter, one of its own items again
    places = torch.where(items == PAD, first, items)
    kept = values[:, 0].clone()
    values.scatter_(1, places.clamp_min(0), value)
    values[:, 0] = torch.where(first.squeeze(1) == PAD, kept, values[:, 0])  # an empty list leaves all
    return values


def catalogue_list(
    output: StudentOutput, items: Tensor, targets: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the scores ``(S, M)`` of listed items and ``(S,)`` the log-sum-exp of all others, both float32.

    Reading listed scores off those of all items costs less than forming them from M vectors a row, and so do their
    gradients.

    Parameters
    ----------
    output
        The student's answer; gradients go to its hidden states, item table and bias.
    items
        ``(S, M)``, each once, `PAD` where a list is shorter: its score is anything, without gradient. Where no other
        item is left, the log-sum-exp is `NOTHING`.
    targets
        ``(S,)`` items whose 1-based pessimistic ranks ``(S,)`` are counted on the way; None: none are returned.
    """
    dtype = product_dtype(output)
    with torch.autocast(output.hidden.device.type, enabled=False):
        found: tuple[Tensor, Tensor, Tensor | None] = _ListAndRest.apply(  # type: ignore[no-untyped-call]
            output.hidden, output.item_table, output.item_bias, items, targets, dtype
        )
    return found


def catalogue_log_sum_exp(output: StudentOutput, left_out: Tensor) -> Tensor:
    """Return ``(S,)`` float32, the log-sum-exp of each row's scores over all items that are not left out.

    Items that training never saw (`StudentOutput.cold`) are left out as well: here they could only be negatives.

    Summing what is left, and not subtracting what is left out, loses no digits where the latter is most of it.

    Parameters
    ----------
    output
        The student's answer; gradients go to its hidden states, item table and bias.
    left_out
        ``(S, P)`` items, `PAD` allowed; repeats count once. A row without an item left gives `NOTHING`.
    """
    dtype = product_dtype(output)
    with torch.autocast(output.hidden.device.type, enabled=False):
        sums: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
            output.hidden, output.item_table, output.warm_bias, left_out, dtype
        )
    return sums


def catalogue_divergence(
    output: StudentOutput, teacher: Callable[[slice], Tensor], temperature: float
) -> Tensor:
    """Return ``(S,)`` float32, KL(softmax(t / T) || softmax(f / T)) of each row over all items.

    Parameters
    ----------
    output
        The student's answer; gradients go to its hidden states, item table and bias.
    teacher
        Maps a slice of rows to their ``(c, I)`` float32 scores t; called once more in the backward pass where rows
        count differently.
    temperature
        T, above 0.
    """
    dtype = product_dtype(output)
    with torch.autocast(output.hidden.device.type, enabled=False):
        values: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
            output.hidden, output.item_table, output.item_bias, teacher, temperature, dtype
        )
    return values


def product_dtype(output: StudentOutput) -> torch.dtype:
    """Return the type of matrix products: that of autocast where it is on, else that of the hidden states."""
    device = output.hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else output.hidden.dtype


def row_chunks(hidden: Tensor, item_count: int) -> list[slice]:
    """Return slices over the S rows whose float32 scores of all items fit the budget of the device."""
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    step = rows_at_once(budget, 4 * item_count)
    return [slice(start, start + step) for start in range(0, len(hidden), step)]
