"""Which rows a gain comes from: popular or rare targets, short or long histories, near or far targets.

Each function returns name → ``(n,)`` bool in the order of the rows; the slices of one function are disjoint,
cover all rows, and empty ones are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.evaluate.ranks import distinct_seen

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Masks = dict[str, Bools]

#: Entries that the sparse products of one chunk of rows may fill at worst.
_ENTRIES_AT_ONCE = 1 << 24
_ROWS_AT_LEAST, _ROWS_AT_MOST = 16, 2048


def slice_masks(dataset: SequenceDataset, rows: Ints) -> dict[str, Masks]:
    """Return all slices of the rows: ``"target popularity"``, ``"history length"``, ``"hop distance"``.

    Parameters
    ----------
    dataset
        The dataset of the rows.
    rows
        ``(n,)`` positions of rows, ascending like the row ids of an `Evaluation`.
    """
    return {
        "target popularity": popularity_slices(dataset, rows),
        "history length": history_length_slices(dataset, rows),
        "hop distance": hop_slices(dataset, rows),
    }


def popularity_slices(dataset: SequenceDataset, rows: Ints, *, head_share: float = 0.8) -> Masks:
    """Split rows by how often their target is a training target: ``head``, ``tail``, ``cold``.

    The head is the smallest set of most popular items that holds at least `head_share` of the training
    interactions, with all items as popular as its last one; a cold item occurs in no event that training may
    look at, neither as a target nor in a history.

    Raises
    ------
    ConfigError
        `head_share` is not between 0 and 1.
    """
    if not 0 < head_share < 1:
        raise ConfigError(f"head_share = {head_share} must lie between 0 and 1. Use 0.8.")
    counts = np.sort(dataset.popularity)[::-1]
    # The first of the most popular items with which the share is reached, up to rounding of the product.
    last = int(np.searchsorted(counts.cumsum(), head_share * counts.sum() - 1e-9))
    threshold = max(1, int(counts[min(last, len(counts) - 1)]))
    popularity = dataset.popularity[dataset.targets(rows)]
    head, cold = popularity >= threshold, dataset.cold_items[dataset.targets(rows)]
    return _without_empty({"head": head, "tail": ~head & ~cold, "cold": cold})


def history_length_slices(
    dataset: SequenceDataset, rows: Ints, *, edges: Sequence[int] = (5, 10, 20, 50)
) -> Masks:
    """Split rows by the length of their whole history: ``1-5``, ``6-10``, ... and ``over 50``.

    Raises
    ------
    ConfigError
        The edges do not ascend from at least 1.
    """
    if not edges or edges[0] < 1 or any(low >= high for low, high in pairwise(edges)):
        raise ConfigError(f"edges {tuple(edges)} must ascend from at least 1. Use (5, 10, 20, 50).")
    place = np.searchsorted(edges, dataset.history_lengths(rows))  # an edge belongs to the bin that it ends
    first = [1, *(edge + 1 for edge in edges[:-1])]
    names = [f"{low}-{high}" if low < high else str(high) for low, high in zip(first, edges, strict=True)]
    return _without_empty({name: place == k for k, name in enumerate([*names, f"over {edges[-1]}"])})


def hop_slices(dataset: SequenceDataset, rows: Ints, *, max_hops: int = 3) -> Masks:
    """Split rows by `hop_distances`: ``seen before``, ``1 hop``, ``2 hops``, ``3 hops``, ``over 3 hops``.

    Rows with a target one hop away can be solved by memorised transitions (Han et al., arXiv 2605.07125); a
    model that understands items should hold its gain further out. The last slice includes targets that no
    path reaches, such as items that training never saw.
    """
    hops = hop_distances(dataset, rows, max_hops=max_hops)
    names = ["seen before", *(f"{k} hop{'s' if k > 1 else ''}" for k in range(1, max_hops + 1))]
    return _without_empty({name: hops == k for k, name in enumerate([*names, f"over {max_hops} hops"])})


def hop_distances(dataset: SequenceDataset, rows: Ints, *, max_hops: int = 3) -> Ints:
    """Return how many training transitions lie between each row's history and its target.

    Two items are neighbours if one directly follows the other, in either order, in the part of a sequence
    that training may look at. The distance is the shortest over all items of the whole history. A training
    row's own transition is part of the graph, so this tells something about valid and test rows only.

    Parameters
    ----------
    dataset, rows
        As in `slice_masks`.
    max_hops
        At least 1.

    Returns
    -------
    ndarray
        ``(n,)`` int64: 0 where the target is in the history, else 1 .. `max_hops`, else ``max_hops + 1``.

    Raises
    ------
    ConfigError
        `max_hops` is below 1.
    """
    if max_hops < 1:
        raise ConfigError(f"max_hops = {max_hops} must be at least 1. Use 3.")
    graph = transition_graph(dataset)
    step = min(_ROWS_AT_MOST, max(_ROWS_AT_LEAST, _ENTRIES_AT_ONCE // max(dataset.item_count, 1)))
    chunks = [_chunk_hops(dataset, rows[k : k + step], graph, max_hops) for k in range(0, len(rows), step)]
    return np.concatenate(chunks) if chunks else np.empty(0, np.int64)


def transition_graph(dataset: SequenceDataset) -> sp.csr_array:
    """Return the symmetric ``(I, I)`` bool matrix of items that follow each other in training."""
    sequence = np.repeat(np.arange(len(dataset.offsets) - 1), np.diff(dataset.offsets))
    first = np.flatnonzero((sequence[1:] == sequence[:-1]) & dataset.train_event_mask[1:])
    before, after = dataset.events[first], dataset.events[first + 1]
    pairs = (np.concatenate([before, after]), np.concatenate([after, before]))
    return _incidence(*pairs, (dataset.item_count, dataset.item_count))


def _chunk_hops(dataset: SequenceDataset, rows: Ints, graph: sp.csr_array, max_hops: int) -> Ints:
    """Meet in the middle: grow the target's surroundings and, once, the history's, until they touch."""
    shape = (len(rows), dataset.item_count)
    behind = _incidence(*distinct_seen(dataset, rows), shape)
    ahead = _incidence(np.arange(len(rows)), dataset.targets(rows), shape)
    hops = np.full(len(rows), max_hops + 1)
    open_rows = np.arange(len(rows))
    for distance in range(max_hops + 1):
        # A target is one item and a history many: its side is the cheaper one but for the second step.
        if distance == 2:
            behind = behind @ graph
        elif distance:
            ahead = ahead @ graph
        met = _touch(behind, ahead)
        hops[open_rows[met]] = distance
        open_rows, behind, ahead = open_rows[~met], behind[~met], ahead[~met]
    return hops


def _incidence(first: Ints, second: Ints, shape: tuple[int, int]) -> sp.csr_array:
    """Return a bool matrix that is True at the given pairs."""
    return sp.csr_array((np.ones(len(first), np.bool_), (first, second)), shape=shape)


def _touch(first: sp.csr_array, second: sp.csr_array) -> Bools:
    """Return ``(n,)``: whether the two matrices share a True in each row."""
    shared: Bools = np.diff(first.multiply(second).tocsr().indptr) > 0
    return shared


def _without_empty(masks: Masks) -> Masks:
    return {name: mask for name, mask in masks.items() if mask.any()}
