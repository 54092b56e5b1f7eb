"""The k best items of many hidden states at little more than the price of the matrix product.

A selection over I scores costs about as much as computing them. Here a row's scores are cut into groups of 64
neighbours, and one pass takes each group's largest. If an item is among the k best of its row, then its group is among
the k groups with the largest maxima: each group above it holds an item that is at least as good. So the maxima choose k
groups, and the same is done once more within those, in groups of 16. The result is exact.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from recdistill.errors import ConfigError

#: Scores at a time: they stay in the last-level cache between two passes, and the memory is used again and again.
_BUFFER_BYTES: Final = 32 * 2**20
_ROWS: Final = 256
_GROUPS: Final = (64, 16)
Seen = tuple[Tensor, Tensor]


class BestItems:
    """Finds the best items of hidden states in one catalogue.

    Parameters
    ----------
    table
        ``(I, H)`` float32.
    bias
        ``(I,)`` or None.
    buffer_bytes
        Memory for scores; rows and items are taken in pieces that fit.
    """

    def __init__(
        self, table: Tensor, bias: Tensor | None = None, *, buffer_bytes: int = _BUFFER_BYTES
    ) -> None:
        self.table, self.bias = table.detach(), None if bias is None else bias.detach()
        group = _GROUPS[0]
        columns = min(len(table), max(4096, buffer_bytes // 4 // _ROWS))
        self.width = -(-columns // group) * group
        self.rows = max(1, buffer_bytes // 4 // self.width)
        self._buffer: Tensor | None = None

    @torch.no_grad()
    def __call__(self, hidden: Tensor, k: int, *, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` scores and ``(B, k)`` int64 items, best first; −∞ where there is no further item,
        whatever item then stands beside it.

        Parameters
        ----------
        hidden
            ``(B, H)``.
        k
            1..I.
        seen
            Pairs ``(n,)`` of row, ascending, and item that are left out, or None.

        Raises
        ------
        ConfigError
            `k` is out of range.
        """
        if not 1 <= k <= len(self.table):
            raise ConfigError(f"k is {k}. Allowed: 1 to {len(self.table)}, the number of items.")
        values = torch.empty(len(hidden), k)
        items = torch.empty(len(hidden), k, dtype=torch.int64)
        for start in range(0, len(hidden), self.rows):
            part = slice(start, start + self.rows)
            values[part], items[part] = self._best(
                hidden[part], k, seen_between(seen, start, start + self.rows)
            )
        return values, items.clamp_(max=len(self.table) - 1)  # −∞ may stand behind the end of a piece

    def _best(self, hidden: Tensor, k: int, seen: Seen | None) -> tuple[Tensor, Tensor]:
        """Return the best of some rows: the best of each piece of the catalogue, then the best of those."""
        if self._buffer is None or len(self._buffer) < len(hidden):
            self._buffer = torch.empty(len(hidden), self.width)
        scores = self._buffer[: len(hidden)]
        values, items = [], []
        for start in range(0, len(self.table), self.width):
            count = self._score(hidden, start, scores)
            if seen is not None:
                _forget(scores, seen, start, count)
            value, place = _grouped_top(scores, min(k, count))
            values.append(value)
            items.append(place + start)
        if len(values) == 1:
            return values[0], items[0]
        best = torch.cat(values, dim=1).topk(k, dim=1)
        return best.values, torch.cat(items, dim=1).gather(1, best.indices)

    def _score(self, hidden: Tensor, start: int, scores: Tensor) -> int:
        """Fill the buffer with the scores of a piece of the catalogue, −∞ behind its end; return its length."""
        part = self.table[start : start + self.width]
        scores[:, len(part) :] = -torch.inf
        out = scores[:, : len(part)]
        if self.bias is None:
            torch.mm(hidden, part.T, out=out)
        else:
            torch.addmm(self.bias[start : start + len(part)], hidden, part.T, out=out)
        return len(part)


def seen_between(seen: Seen | None, first: int, last: int) -> Seen | None:
    """Return the pairs of the rows first..last-1, counted from `first`."""
    if seen is None:
        return None
    ends = torch.searchsorted(seen[0], torch.tensor([first, last]))
    part = slice(int(ends[0]), int(ends[1]))
    return seen[0][part] - first, seen[1][part]


def _forget(scores: Tensor, seen: Seen, start: int, count: int) -> None:
    owner, item = seen
    if start or count < len(scores[0]) or bool((item >= count).any()):
        here = (item >= start) & (item < start + count)
        owner, item = owner[here], item[here] - start
    scores[owner, item] = -torch.inf


def _grouped_top(scores: Tensor, k: int, sizes: tuple[int, ...] = _GROUPS) -> tuple[Tensor, Tensor]:
    """Return the k best of each row of ``(B, n)`` scores, n a multiple of the first size, and their places."""
    batch, count = scores.shape
    if not sizes or count // sizes[0] <= 2 * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    size = sizes[0]
    groups = count // size
    top = scores.view(batch, groups, size).amax(2).topk(k, dim=1, sorted=False).indices  # (B, k)
    flat = top + groups * torch.arange(batch).unsqueeze(1)
    chosen = scores.view(batch * groups, size).index_select(0, flat.flatten()).view(batch, k * size)
    values, places = _grouped_top(chosen, k, sizes[1:])
    return values, top.gather(1, places // size) * size + places % size
