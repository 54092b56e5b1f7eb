"""Two models row by row: who ranks the target better, and what their lists share (the paper's Tables 2 and
3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.evaluate.accuracy import row_metric
from recdistill.knowledge.lists import row_chunks
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Strength:
    """How often one model ranks the target better than another (Table 2). Shares are of `rows`.

    Attributes
    ----------
    rows
        Rows that were compared.
    better, worse, equal
        Shares of rows by the rank of the target; they sum to 1.
    ratio
        ``better / (better + worse)``, as Table 2 prints it; None where all rows are equal.
    hit_rows
        Rows in which at least one of the two has the target in its top k: only they matter for the metrics.
    hit_ratio
        `ratio` among those rows, or None.
    first_only, second_only, both, neither
        Shares of rows by who has the target in its top k; they sum to 1.
    """

    rows: int
    better: float
    worse: float
    equal: float
    ratio: float | None
    hit_rows: int
    hit_ratio: float | None
    first_only: float
    second_only: float
    both: float
    neither: float


@dataclass(frozen=True)
class Overlap:
    """What two models' top lists share, and where the hits are (Table 3).

    Attributes
    ----------
    shared
        Share of the first model's listed items that the second lists in the same row.
    first_only, second_only
        Share of each model's items that the other does not list.
    hits_shared, hits_first_only, hits_second_only
        Share of those items that are the row's target; None where there are no such items.
    """

    shared: float
    first_only: float
    second_only: float
    hits_shared: float | None
    hits_first_only: float | None
    hits_second_only: float | None


@dataclass(frozen=True)
class Difference:
    """A paired difference of NDCG@k.

    Attributes
    ----------
    mean
        First minus second.
    error
        Standard error of `mean` over rows.
    """

    mean: float
    error: float

    def sign(self, errors: float = 2.0) -> int:
        """Return 1 or -1 where the difference is more than so many standard errors, else 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > errors * self.error else 0


def relative_strength(first: npt.NDArray[Any], second: npt.NDArray[Any], k: int = 20) -> Strength:
    """Compare two models' ranks of the same rows' targets.

    Parameters
    ----------
    first, second
        ``(n,)`` 0-based ranks.
    k
        Length of a list that counts as a hit.
    """
    hit_first, hit_second = first < k, second < k
    either = hit_first | hit_second
    return Strength(
        rows=len(first),
        better=_share(first < second),
        worse=_share(first > second),
        equal=_share(first == second),
        ratio=_ratio((first < second).sum(), (first > second).sum()),
        hit_rows=int(either.sum()),
        hit_ratio=_ratio((first < second)[either].sum(), (first > second)[either].sum()),
        first_only=_share(hit_first & ~hit_second),
        second_only=_share(hit_second & ~hit_first),
        both=_share(hit_first & hit_second),
        neither=_share(~either),
    )


def top_overlap(first: npt.NDArray[Any], second: npt.NDArray[Any], targets: npt.NDArray[Any]) -> Overlap:
    """Compare two models' lists of the same rows.

    Parameters
    ----------
    first, second
        ``(n, k)`` listed items, each at most once in a row, `PAD` where a list is shorter.
    targets
        ``(n,)`` true items.
    """
    items = np.zeros(2, dtype=np.int64)  # listed by the first, by the second
    hits = np.zeros(2, dtype=np.int64)
    shared = shared_hits = 0
    for rows in row_chunks(len(first), first.shape[1] * second.shape[1]):
        one, two, target = first[rows], second[rows], targets[rows, None]
        both = ((one[:, :, None] == two[:, None, :]).any(2)) & (one != PAD)  # (c, k)
        items += [(one != PAD).sum(), (two != PAD).sum()]
        hits += [(one == target).sum(), (two == target).sum()]
        shared += int(both.sum())
        shared_hits += int((both & (one == target)).sum())
    alone, alone_hits = items - shared, hits - shared_hits
    return Overlap(
        shared=shared / max(int(items[0]), 1),
        first_only=int(alone[0]) / max(int(items[0]), 1),
        second_only=int(alone[1]) / max(int(items[1]), 1),
        hits_shared=shared_hits / shared if shared else None,
        hits_first_only=int(alone_hits[0]) / int(alone[0]) if alone[0] else None,
        hits_second_only=int(alone_hits[1]) / int(alone[1]) if alone[1] else None,
    )


def ndcg_difference(first: npt.NDArray[Any], second: npt.NDArray[Any], k: int = 20) -> Difference:
    """Return the paired difference of NDCG@k of two models' ``(n,)`` ranks; zero for no rows."""
    gaps = row_metric(first, f"ndcg@{k}") - row_metric(second, f"ndcg@{k}")
    if not len(gaps):
        return Difference(0.0, 0.0)
    error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.abs(gaps[0])
    return Difference(float(gaps.mean()), float(error))


def _share(mask: npt.NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _ratio(better: int, worse: int) -> float | None:
    return float(better / (better + worse)) if better + worse else None
