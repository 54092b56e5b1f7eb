"""The student's own top K, and its ranks of a few items, without gradient and without a large temporary.

Both read the logits that the loss has already computed; where it computed none (chunked cross-entropy, a few
sampled negatives) they compute them anew for a few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from recdistill.products import rows_at_once
from recdistill.types import StudentOutput

CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # held at a time: on a CPU what stays in its cache
_BLOCK = 16  # items a block, at most
_FIRST_PART = 8  # this part of the catalogue tells most ranks that are high enough


@torch.no_grad()
def student_top_items(output: StudentOutput, k: int) -> Tensor:
    """Return ``(S, k)``, the student's k best items in no order; shared by all who ask for the same batch."""
    k = min(k, output.item_table.shape[0])

    def compute() -> Tensor:
        return torch.cat([top_columns(logits, k) for _, logits in _logit_chunks(output)])

    return output.shared(f"top_items_{k}", compute)


@torch.no_grad()
def student_top_list(output: StudentOutput, k: int) -> Tensor:
    """Return ``(S, k)``, the student's k best items, best first; shared by all who ask for the same batch."""
    k = min(k, output.item_table.shape[0])

    def compute() -> Tensor:
        return torch.cat([_top_list(logits, k) for _, logits in _logit_chunks(output)])

    return output.shared(f"top_list_{k}", compute)


def _top_list(scores: Tensor, k: int) -> Tensor:
    columns = top_columns(scores, k)  # (s, k)
    return columns.gather(1, scores.gather(1, columns).argsort(dim=1, descending=True))


@torch.no_grad()
def student_ranks(output: StudentOutput, items: Tensor, *, enough: float = math.inf) -> Tensor:
    """Return ``(S, n)`` float32, how many items the student scores above each of the ``(S, n)`` items.

    A `PAD` gets the rank of item 0. Where a caller does not tell ranks of `enough` and more apart, any rank
    from there on may come back too low, but not below `enough`: a row all of whose items are that far down after
    a part of the catalogue is not compared with the rest.
    """
    index = items.clamp_min(0)
    item_count = output.item_table.shape[0]
    part = item_count // _FIRST_PART
    if "logits" in output.__dict__ or part <= enough:
        return torch.cat([ranks_in(logits, index[rows]) for rows, logits in _logit_chunks(output)])
    own = output.scores(index).detach().float()  # (S, n)
    ranks = _count_above(output, own, slice(0, part))
    unsure = (ranks < enough).any(1).nonzero().squeeze(1)
    if len(unsure):
        exact = replace(output, hidden=output.hidden[unsure], _memo={})
        ranks[unsure] = student_ranks(exact, items[unsure])
    return ranks


def _count_above(output: StudentOutput, own: Tensor, columns: slice) -> Tensor:
    """Return ``(S, n)`` float32, how many items of a part of the catalogue lie clearly above ``(S, n)`` scores."""
    table = output.item_table.detach()[columns]
    bias = None if output.item_bias is None else output.item_bias.detach()[columns]
    part = StudentOutput(output.hidden.detach(), table, bias, output.embed_items)
    own = own + 1e-3 * own.abs().clamp_min(1)  # `scores` and chunks of `logits` differ by rounding
    counts = [_compared(logits, own[rows]) for rows, logits in _logit_chunks(part)]
    return torch.cat(counts)


@torch.no_grad()
def sampled_ranks(output: StudentOutput, items: Tensor, samples: int, *, own: Tensor | None = None) -> Tensor:
    """Return ``(S, n)`` float32, the ranks that `samples` random items suggest: floor((I-1) share above).

    `own` are the scores of the ``(S, n)`` items where they are known already.
    """
    item_count = output.item_table.shape[0]
    drawn = torch.randint(item_count, (samples,), device=items.device)
    if "logits" in output.__dict__:
        others = output.logits[:, drawn]  # (S, samples)
    else:
        others = output.hidden @ output.vectors(drawn).T
        others = others if output.item_bias is None else others + output.item_bias[drawn]
    own = output.scores(items) if own is None else own
    ordered = others.float().sort(1).values
    above = samples - torch.searchsorted(ordered, own.detach().float().contiguous(), right=True)  # (S, n)
    return torch.floor((item_count - 1) * above / samples)


def top_columns(scores: Tensor, k: int) -> Tensor:
    """Return ``(S, k)``, the columns of the k largest of ``(S, I)`` scores, in no order.

    Whatever is in the top k lies in one of the k blocks with the largest maxima, so that only those are
    searched: exact, and about twice as fast as searching a whole row of 17,408 items, for k from 10 to 200. A
    block is every (I / b)-th column, so that its maximum is taken over whole rows of memory.
    """
    count = scores.shape[1]
    size = min(_BLOCK, 1 << int(math.log2(max(1.0, count / k) ** 0.5)))  # near the best for both searches
    if size < 4:
        return scores.topk(k, dim=1, sorted=False).indices
    stride = count // size
    blocks = scores[:, : stride * size].view(len(scores), size, stride)  # (S, b, I / b)
    best = blocks.amax(1).topk(k, dim=1, sorted=False).indices  # (S, k)
    starts = stride * torch.arange(size, device=scores.device)
    columns = (best.unsqueeze(2) + starts).flatten(1)  # (S, b k)
    if stride * size < count:
        rest = torch.arange(stride * size, count, device=scores.device).expand(len(scores), -1)
        columns = torch.cat([columns, rest], dim=1)
    within = scores.gather(1, columns).topk(k, dim=1, sorted=False).indices
    return columns.gather(1, within)


def ranks_in(scores: Tensor, items: Tensor) -> Tensor:
    """Return ``(S, n)`` float32: how many of ``(S, I)`` scores lie above those of the ``(S, n)`` items."""
    return _compared(scores, scores.gather(1, items))


def _compared(scores: Tensor, own: Tensor) -> Tensor:
    """Return ``(S, n)`` float32: how many of ``(S, I)`` scores lie above each of ``(S, n)``."""
    ranks = torch.empty_like(own, dtype=torch.float32)
    step = _rows_a_chunk(scores.device, 4 * own.shape[1] * scores.shape[1])
    for start in range(0, len(scores), step):
        rows = slice(start, start + step)
        above = torch.empty((len(own[rows]), own.shape[1], scores.shape[1]), device=own.device)  # (s, n, I)
        torch.gt(
            scores[rows].unsqueeze(1), own[rows].unsqueeze(2), out=above
        )  # as 0. and 1.: sums of floats are fast
        ranks[rows] = above.sum(2)
    return ranks


def _logit_chunks(output: StudentOutput) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and their ``(s, I)`` logits, all at once where they exist."""
    if "logits" in output.__dict__:
        yield slice(None), output.logits.detach()
        return
    hidden, table = output.hidden.detach(), output.item_table.detach()
    if torch.is_autocast_enabled(hidden.device.type):  # once, not once a chunk
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, table = hidden.to(dtype), table.to(dtype)
    step = _rows_a_chunk(hidden.device, 4 * len(table))
    for start in range(0, len(hidden), step):
        rows = slice(start, start + step)
        logits = hidden[rows] @ table.T  # (s, I)
        yield rows, logits if output.item_bias is None else logits.add_(output.item_bias.detach())


def _rows_a_chunk(device: torch.device, row_bytes: int) -> int:
    return rows_at_once(CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]), row_bytes)
