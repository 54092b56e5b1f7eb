"""The k best items of a hidden state, exactly: the largest scores, of equal ones the smaller index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recdistill.serve.prefilter import Prefilter
from recdistill.serve.table import ItemTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

#: Products of one pass of the prefilter, so that its result stays at 32 MB.
_PRODUCTS: Final = 1 << 23
#: A subset of at most this share of the catalogue is scored item by item.
_SMALL_SHARE: Final = 16
#: Rounding of a float32 sum, relative to |h| max |w|.
_SLACK: Final = 1e-5


@dataclass(frozen=True, eq=False)
class Ranked:
    """An answer: ``items (n,)`` int64, best first, and their ``scores (n,)`` float32; n is k or fewer."""

    items: Ints
    scores: Floats


class Scorer:
    """Ranks the catalogue.

    Parameters
    ----------
    table
        The I items.
    threads
        Of a matrix product.
    prefilter
        Whether an 8-bit pass picks candidates first. Without it all scores are computed in float32; the answers are
        the same.
    """

    def __init__(self, table: ItemTable, *, threads: int = 1, prefilter: bool = True) -> None:
        self.table = table
        self.prefilter = Prefilter(table, threads=threads) if prefilter else None
        self._slack = _SLACK * (float(table.norms().max()) + 1e-30)

    def top(
        self, hidden: Floats, k: int, *, banned: list[Ints] | None = None, among: Ints | None = None
    ) -> list[Ranked]:
        """Return the k best items for each of ``(B, H)`` hidden states.

        Parameters
        ----------
        hidden
            Finite numbers.
        k
            1 or more; a list is shorter where fewer items may be answered.
        banned
            For each row the items that may not be answered.
        among
            The only items that may be answered, for all rows; ascending, without repeats. None: all.
        """
        banned = banned or [np.zeros(0, dtype=np.int64)] * len(hidden)
        k = min(k, len(self.table))
        if among is not None and len(among) * _SMALL_SHARE <= len(self.table):
            found = [np.setdiff1d(among, row, assume_unique=False) for row in banned]
            return [self._exact(state, items, k) for state, items in zip(hidden, found, strict=True)]
        allowed = None
        if among is not None:
            allowed = np.zeros(len(self.table), dtype=np.bool_)
            allowed[among] = True
        if self.prefilter is None or k > self.prefilter.columns:
            found = [
                self._by_float(state, k, row, allowed) for state, row in zip(hidden, banned, strict=True)
            ]
            return [self._exact(state, items, k) for state, items in zip(hidden, found, strict=True)]
        answers: list[Ranked] = []
        most = max(1, min(32, _PRODUCTS // len(self.table)))
        for start in range(0, len(hidden), most):
            part = hidden[start : start + most]
            found = self.prefilter.candidates(part, k, banned[start : start + most], allowed)
            answers += [self._exact(state, items, k) for state, items in zip(part, found, strict=True)]
        return answers

    def _by_float(self, state: Floats, k: int, banned: Ints, allowed: Bools | None) -> Ints:
        """Return candidates by float32 scores: whoever may be k-th best but for rounding."""
        scores = self.table.all_scores(state)
        if allowed is not None:
            scores[~allowed] = -np.inf
        scores[banned] = -np.inf
        bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        margin = self._margin(state, float(bound)) if np.isfinite(bound) else 0.0
        return np.flatnonzero((scores >= bound - margin) & (scores > -np.inf))

    def _exact(self, state: Floats, items: Ints, k: int) -> Ranked:
        if len(items) > 2 * k:
            items = self._near_best(state, items, k)
        scores = self.table.scores(state, items)
        best = np.lexsort((items, -scores))[:k]
        return Ranked(items[best], scores[best].astype(np.float32))

    def _near_best(self, state: Floats, items: Ints, k: int) -> Ints:
        """Return the items whose float32 score may be among the k best but for rounding."""
        scores = self.table.rows(items) @ state
        if self.table.bias is not None:
            scores += self.table.bias[items]
        bound = float(np.partition(scores, len(scores) - k)[len(scores) - k])
        return items[scores >= bound - self._margin(state, bound)]

    def _margin(self, state: Floats, bound: float) -> float:
        return 2 * self._slack * float(np.linalg.norm(state)) + _SLACK * abs(bound)
