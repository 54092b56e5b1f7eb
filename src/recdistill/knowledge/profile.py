"""What one model's lists and distances look like, whatever the targets are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.lists import grouped, keep_slots, repeated_slots, share_pairs, title_groups
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]

QUANTILES: Final[tuple[float, ...]] = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
#: The authors' code weights the ten nearest items by ``exp(-d) + 1e-8``.
_AUTHORS_K: Final = 10
_AUTHORS_FLOOR: Final = 1e-8


@dataclass(frozen=True)
class ListProfile:
    """Lists over all rows; shares are of listed slots unless said otherwise.

    Attributes
    ----------
    rows, k
        How many lists of which length.
    filled
        Share of the ``rows * k`` slots that hold an item.
    catalogue
        I, the number of items.
    distinct_items, distinct_share
        Different items over all lists, and their share of the catalogue.
    mean_popularity, catalogue_popularity
        Training targets an item has, averaged over slots and over the catalogue.
    head_share
        Slots that hold one of the 10 % most popular items.
    history_share
        Slots that repeat an item of the row's history.
    duplicate_titles
        Slots that hold a title which stands higher up in the same list.
    """

    rows: int
    k: int
    filled: float
    catalogue: int
    distinct_items: int
    distinct_share: float
    mean_popularity: float
    catalogue_popularity: float
    head_share: float
    history_share: float
    duplicate_titles: float


@dataclass(frozen=True)
class DistanceProfile:
    """Distances, and what the authors' confidence ``exp(-d) + 1e-8`` would make of them (spec 4.3-4).

    Attributes
    ----------
    quantiles
        Of listed distances at 0, 5, 25, 50, 75, 95 and 100 %; empty without distances.
    target_quantiles
        Of the distances of the true items.
    uniform_rows
        Share of rows in which the largest weight of the ten nearest items is less than 5 % above the
        smallest: the weights say nothing. None without distances.
    one_hot_rows
        Share of rows in which one item takes 99 % of the weight.
    vanishing_targets
        Share of true items with ``exp(-d) < 1e-8``: eq. 7 gives such rows no weight. None where unknown.
    order_correlation
        Spearman correlation of the nearest distance with a hit in the top k, signed so that above 0 a near
        list is a good list; None where it is not defined.
    """

    quantiles: tuple[float, ...]
    target_quantiles: tuple[float, ...]
    uniform_rows: float | None
    one_hot_rows: float | None
    vanishing_targets: float | None
    order_correlation: float | None


def top_lists(
    ranking: npt.NDArray[Any],
    dataset: SequenceDataset,
    rows: Ints,
    k: int,
    *,
    filter_seen: bool,
    keep_targets: bool = False,
) -> npt.NDArray[Any]:
    """Return ``(n, k)`` the first k items of each list, `PAD` where a list is shorter.

    Parameters
    ----------
    ranking
        ``(n, K)`` lists of `rows` (positions).
    dataset, rows, k
        Whose histories, which rows, how many items.
    filter_seen
        Whether items of the row's history are left out.
    keep_targets
        Whether a target that is in the history stays nevertheless, as it does where ranks are counted.
    """
    if filter_seen:
        seen = share_pairs(*dataset.seen(rows), ranking, dataset.item_count)
        if keep_targets:
            seen &= ranking != dataset.targets(rows)[:, None]
        ranking, _ = keep_slots(ranking, ~seen & (ranking != PAD))
    if ranking.shape[1] < k:
        ranking = np.pad(ranking, ((0, 0), (0, k - ranking.shape[1])), constant_values=PAD)
    return ranking[:, :k]


def profile_lists(top: npt.NDArray[Any], dataset: SequenceDataset, rows: Ints) -> ListProfile:
    """Describe ``(n, k)`` lists of the dataset's `rows` (positions)."""
    listed = top != PAD
    items = top[listed]
    slots = max(len(items), 1)
    popularity = dataset.popularity
    head = np.zeros(dataset.item_count, dtype=np.bool_)
    head[np.argsort(-popularity, kind="stable")[: -(-dataset.item_count // 10)]] = True
    distinct = len(np.unique(items))
    groups = title_groups(dataset.catalogue.titles)
    return ListProfile(
        rows=len(top),
        k=top.shape[1],
        filled=len(items) / max(top.size, 1),
        catalogue=dataset.item_count,
        distinct_items=distinct,
        distinct_share=distinct / dataset.item_count,
        mean_popularity=float(popularity[items].sum() / slots),
        catalogue_popularity=float(popularity.mean()),
        head_share=float(head[items].sum() / slots),
        history_share=float(share_pairs(*dataset.seen(rows), top, dataset.item_count).sum() / slots),
        duplicate_titles=float(repeated_slots(grouped(top, groups)).sum() / slots),
    )


def profile_distances(
    distance: npt.NDArray[np.float32] | None,
    target_distance: npt.NDArray[np.float32] | None,
    ranks: npt.NDArray[Any] | None = None,
    k: int = 20,
) -> DistanceProfile:
    """Describe distances of n rows.

    Parameters
    ----------
    distance
        ``(n, K)`` of listed items, NaN where nothing is listed, or None.
    target_distance
        ``(n,)``, NaN where unknown, or None.
    ranks
        ``(n,)`` ranks of the targets, to see whether near lists are good lists.
    k
        What counts as a hit.
    """
    uniform, one_hot = (None, None) if distance is None else authors_weights(distance)
    known = None if target_distance is None else target_distance[np.isfinite(target_distance)]
    vanishing = None if known is None or not len(known) else float((np.exp(-known) < _AUTHORS_FLOOR).mean())
    return DistanceProfile(
        quantiles=_quantiles(distance),
        target_quantiles=_quantiles(known),
        uniform_rows=uniform,
        one_hot_rows=one_hot,
        vanishing_targets=vanishing,
        order_correlation=None if distance is None or ranks is None else _order(distance[:, 0], ranks < k),
    )


def authors_weights(distance: npt.NDArray[np.float32]) -> tuple[float | None, float | None]:
    """Return the shares of rows whose weights by the authors' code are uniform, and one-hot.

    Parameters
    ----------
    distance
        ``(n, K)``, NaN where nothing is listed; rows with fewer than two items are left out.
    """
    near = distance[:, :_AUTHORS_K].astype(np.float64)
    near = near[np.isfinite(near).sum(axis=1) > 1]
    if not len(near):
        return None, None
    weights = np.exp(-near) + _AUTHORS_FLOOR  # (n, 10), NaN stays NaN
    largest, smallest = np.nanmax(weights, axis=1), np.nanmin(weights, axis=1)
    uniform = (largest < 1.05 * smallest).mean()
    return float(uniform), float((largest > 0.99 * np.nansum(weights, axis=1)).mean())


def _quantiles(values: npt.NDArray[np.float32] | None) -> tuple[float, ...]:
    finite = np.empty(0) if values is None else values[np.isfinite(values)]
    return tuple(float(v) for v in np.quantile(finite, QUANTILES)) if len(finite) else ()


def _order(nearest: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_]) -> float | None:
    from scipy.stats import rankdata

    known = np.isfinite(nearest)
    if known.sum() < 2 or len(np.unique(nearest[known])) < 2 or len(np.unique(hits[known])) < 2:
        return None
    ranked = rankdata(-nearest[known]), rankdata(hits[known])
    return float(np.corrcoef(*ranked)[0, 1])
