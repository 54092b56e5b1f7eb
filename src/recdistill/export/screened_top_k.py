"""The k best items of many hidden states for less than the price of the float32 product: 8-bit scores screen the items.

Vectors carry their bias as one more coordinate, v_i = [w_i, b_i / c] and g = [h, c], so that a score is v_i · g.
Both are rounded to whole steps: v̂_i = s q_i with q_i in -127..127 and one step s for a group of 64 items of similar
size, ĝ = t u. With the rounding errors e_i = |v_i - v̂_i| and d = |g - ĝ| (Euclidean),

(1)  |v_i · g - v̂_i · ĝ| <= e_i |g| + |v̂_i| d =: E_i         (Cauchy-Schwarz, twice)

The k-th largest of "best approximate score of a group, minus its E" is passed by k items, one of each of k groups: it
is a lower bound of the k-th best true score. Whoever stays below it with E added is out; the rest, some dozens, are
scored in float32. The result is that of sorting all scores. `recdistill.serve.prefilter` does so for one user.

The product of whole numbers needs a processor with VNNI instructions, where it is four times as fast as float32's. On
others, and where too many items are left (a table whose rows are all alike), `BestItems` scores everything.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from recdistill.export.top_k import BestItems, Seen, seen_between

_GROUP: Final = 64
_BUFFER_BYTES: Final = 32 * 2**20
_ROWS: Final = 256
#: Groups of the catalogue for each of the k; with fewer, the groups' maxima say too little.
_GROUPS_OF_ONE: Final = 4
#: Marks an item that may not be answered; no product is that small.
_BANNED: Final = -(2**31)
#: Rounding of the float32 arithmetic of the bound itself, relative to |g| max |v|.
_SLACK: Final = 1e-5
#: More candidates than this share of the scores of a piece: the screen does not pay.
_MOST_LEFT: Final = 1 / 16
#: Candidates scored at a time; their vectors stay in the cache.
_PAIRS: Final = 1 << 11


@cache
def whole_products() -> bool:
    """Tell whether this processor multiplies 8-bit numbers quickly, and torch does it without an error."""
    supported = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not supported() or not hasattr(torch, "_int_mm"):
        return False
    left, right = (torch.full((16, 64), value, dtype=torch.int8) for value in (127, -127))
    left[:, ::3] = -127
    try:
        return bool((torch._int_mm(left, right.T) == left.int() @ right.int().T).all())
    except RuntimeError:
        return False


def best_items(table: Tensor, bias: Tensor | None = None) -> BestItems:
    """Return what finds the best items of a catalogue the fastest way that this processor has."""
    return ScreenedBestItems(table, bias) if whole_products() else BestItems(table, bias)


class ScreenedBestItems(BestItems):
    """Finds the best items of hidden states in one catalogue; called as `BestItems` is.

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
        super().__init__(table, bias, buffer_bytes=buffer_bytes)
        count = len(table)
        self.groups = -(-count // _GROUP)
        self.unit = self._bias_unit()
        vectors = self._vectors()  # (I, n)
        order = vectors.abs().amax(1).argsort(descending=True)
        self.order = torch.full((self.groups * _GROUP,), count - 1)  # what stands behind the end is banned
        self.order[:count] = order
        self.place = torch.empty(count, dtype=torch.int64)  # (I,) where an item stands
        self.place[order] = torch.arange(count)
        self._round_table(vectors)
        pieces = max(1, buffer_bytes // 4 // _ROWS // _GROUP)
        self._piece = min(self.groups, pieces)  # groups of one product
        self._most_rows = max(1, buffer_bytes // 4 // (self._piece * _GROUP))
        self._products: Tensor | None = None

    def _bias_unit(self) -> float:
        """Return c, which makes ``bias / c`` as large as the vectors' entries; 0 without biases."""
        if self.bias is None or not bool(self.bias.any()):
            return 0.0
        return float(self.bias.abs().max() / self.table.abs().max().clamp_min(1e-30))

    def _vectors(self) -> Tensor:
        if not self.unit or self.bias is None:
            return self.table
        return torch.cat([self.table, self.bias.unsqueeze(1) / self.unit], dim=1)

    def _round_table(self, vectors: Tensor) -> None:
        """Note the whole steps ``(P, n)`` and of each group its step, largest error and largest norm."""
        self.steps = torch.zeros(len(self.order), vectors.shape[1], dtype=torch.int8)
        self.step, self.error, self.norm = (torch.zeros(self.groups) for _ in range(3))
        width = 1024
        for start in range(0, self.groups, width):
            groups = slice(start, min(start + width, self.groups))
            rows = slice(groups.start * _GROUP, groups.stop * _GROUP)
            part = vectors[self.order[rows]].view(-1, _GROUP, vectors.shape[1])  # (g, 64, n)
            step = part.abs().amax((1, 2)).clamp_min(1e-30) / 127  # (g,)
            whole = (part / step[:, None, None]).round_().clamp_(-127, 127)
            self.steps[rows] = whole.view(-1, vectors.shape[1]).to(torch.int8)
            near = whole * step[:, None, None]
            self.step[groups] = step
            self.error[groups] = (part - near).norm(dim=2).amax(1)
            self.norm[groups] = near.norm(dim=2).amax(1)
        self.largest = float((self.norm + self.error).max())

    @torch.no_grad()
    def __call__(self, hidden: Tensor, k: int, *, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(B, k)`` scores and ``(B, k)`` int64 items; see `BestItems`."""
        if not 1 <= k * _GROUPS_OF_ONE <= self.groups:
            return super().__call__(hidden, k, seen=seen)
        values = torch.empty(len(hidden), k)
        items = torch.empty(len(hidden), k, dtype=torch.int64)
        for start in range(0, len(hidden), self._most_rows):
            part = slice(start, start + self._most_rows)
            here = seen_between(seen, start, start + self._most_rows)
            pairs = self._candidates(hidden[part], k, here)
            if pairs is None:
                values[part], items[part] = super().__call__(hidden[part], k, seen=here)
            else:
                values[part], items[part] = self._exact(hidden[part], k, *pairs)
        return values, items

    def _candidates(self, hidden: Tensor, k: int, seen: Seen | None) -> tuple[Tensor, Tensor] | None:
        """Return pairs ``(n,)`` of row, ascending, and item among which all k best are; None: too many are left."""
        states = hidden
        if self.unit:
            states = torch.cat([hidden, torch.full((len(hidden), 1), self.unit)], dim=1)
        unit = states.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127  # (B, 1)
        whole = (states / unit).round_()
        size, loss = states.norm(dim=1, keepdim=True), (states - whole * unit).norm(dim=1, keepdim=True)
        if not bool(torch.isfinite(size).all()):
            return None
        steps = whole.to(torch.int8)
        lower = torch.full((len(hidden), k), -torch.inf)
        found = []
        for start in range(0, self.groups, self._piece):
            groups = slice(start, min(start + self._piece, self.groups))
            product = self._product(steps, groups, seen)  # (B, g, 64) int32
            scale = self.step[groups] * unit  # (B, g)
            margin = self.error[groups] * size + self.norm[groups] * loss + _SLACK * self.largest * size
            best = product.amax(2) * scale
            lower = _largest(torch.cat([lower, best - margin], dim=1), k)
            bound = lower.amin(1, keepdim=True)  # (B, 1)
            row, group = (best + margin >= bound).nonzero(as_tuple=True)
            flat = row * product.shape[1] + group
            needed = ((bound - margin) / scale).floor_().clamp_(_BANNED / 2, -_BANNED / 2).to(torch.int32)
            chosen = product.view(-1, _GROUP).index_select(0, flat)  # (hits, 64)
            hit = _true(chosen >= needed.view(-1)[flat].unsqueeze(1))
            if len(hit) > _MOST_LEFT * product.numel():
                return None
            near = hit // _GROUP
            place = (groups.start + group[near]) * _GROUP + hit % _GROUP
            if product.shape[1] == self.groups:
                return row[near], self.order[place]
            cell = flat[near]
            upper = chosen.view(-1)[hit] * scale.view(-1)[cell] + margin.view(-1)[cell]
            found.append((row[near], place, upper))
        return self._left(found, bound)

    def _left(self, found: list[tuple[Tensor, Tensor, Tensor]], bound: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs that the last bound leaves; the bounds of earlier pieces were lower."""
        rows, places, uppers = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = (uppers >= bound.view(-1)[rows]).nonzero().squeeze(1)
        kept = kept[rows[kept].argsort(stable=True)]
        return rows[kept], self.order[places[kept]]

    def _product(self, steps: Tensor, groups: slice, seen: Seen | None) -> Tensor:
        """Return the ``(B, g, 64)`` products of whole steps, those of items that may not be answered banned."""
        first, last = groups.start * _GROUP, groups.stop * _GROUP
        needed = len(steps) * (last - first)
        if self._products is None or len(self._products) < needed:
            self._products = torch.empty(needed, dtype=torch.int32)
        product = self._products[:needed].view(len(steps), last - first)
        torch._int_mm(steps, self.steps[first:last].T, out=product)
        product[:, max(0, len(self.table) - first) :] = _BANNED
        if seen is not None:
            owner, place = seen[0], self.place[seen[1]]
            if last - first < len(self.order):
                here = (place >= first) & (place < last)
                owner, place = owner[here], place[here]
            product[owner, place - first] = _BANNED
        return product.view(len(steps), -1, _GROUP)

    def _exact(self, hidden: Tensor, k: int, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ``(B, k)`` best of the candidates by their float32 scores."""
        scores = torch.empty(len(row))
        for start in range(0, len(row), _PAIRS):
            part = slice(start, start + _PAIRS)
            rows = self.table.index_select(0, item[part])
            scores[part] = rows.mul_(hidden.index_select(0, row[part])).sum(1)
        if self.bias is not None:
            scores += self.bias[item]
        counts = row.bincount(minlength=len(hidden))
        place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        width = max(k, int(counts.max()) if len(counts) else 0)
        grid = torch.full((len(hidden), width), -torch.inf)
        names = torch.zeros(len(hidden), width, dtype=torch.int64)
        grid[row, place], names[row, place] = scores, item
        best: Any = grid.topk(k, dim=1)
        return best.values, names.gather(1, best.indices)


def _true(mask: Tensor) -> Tensor:
    """Return the flat places that are true; numpy finds them three times as fast."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _largest(values: Tensor, k: int) -> Tensor:
    """Return the k largest of each row in any order; numpy's selection is four times as fast as `topk`."""
    split = values.shape[1] - k
    return torch.from_numpy(np.partition(values.numpy(), split, axis=1)[:, split:])
