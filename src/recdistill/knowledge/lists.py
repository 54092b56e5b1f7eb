"""Ranked lists as ``(n, K)`` arrays: repeats, removal of slots, titles that several items share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from recdistill.types import PAD

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Elements that a chunked computation holds at once: 2**22 float32 are 16 MiB.
CHUNK_ELEMENTS = 1 << 22


def row_chunks(rows: int, width: int) -> Iterator[slice]:
    """Yield slices that cover `rows` rows, each of at most `CHUNK_ELEMENTS` elements of rows × `width`."""
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def repeated_slots(lists: npt.NDArray[np.integer]) -> Bools:
    """Return ``(n, K)``: which slots hold a value that an earlier slot of the same row holds. `PAD` never
    repeats."""
    order = np.argsort(lists, axis=1, kind="stable")  # (n, K)
    ordered = np.take_along_axis(lists, order, axis=1)
    again = np.zeros(lists.shape, dtype=np.bool_)
    again[:, 1:] = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PAD)
    repeated = np.zeros(lists.shape, dtype=np.bool_)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated


def keep_slots(
    lists: npt.NDArray[np.integer], keep: Bools, distances: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32] | None]:
    """Drop slots and close the gaps: lists end in `PAD`, their distances in NaN.

    Parameters
    ----------
    lists
        ``(n, K)`` items.
    keep
        ``(n, K)`` the slots that stay.
    distances
        ``(n, K)`` or None.
    """
    order = np.argsort(~keep, axis=1, kind="stable")  # (n, K)
    gone = np.arange(lists.shape[1]) >= keep.sum(axis=1, keepdims=True)
    kept = np.take_along_axis(lists, order, axis=1)
    kept[gone] = PAD
    if distances is None:
        return kept, None
    moved = np.take_along_axis(distances, order, axis=1)
    moved[gone] = np.nan
    return kept, moved


def title_groups(titles: Sequence[str]) -> Ints:
    """Return ``(I,)`` the first item that has the same title; an item without a title stands alone.

    Titles are compared without surrounding blanks and without regard to case.
    """
    first: dict[str, int] = {}
    groups = np.arange(len(titles), dtype=np.int64)
    for item, title in enumerate(titles):
        key = title.strip().casefold()
        if key:
            groups[item] = first.setdefault(key, item)
    return groups


def grouped(lists: npt.NDArray[np.integer], groups: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return the ``(n, K)`` groups of the listed items, `PAD` where nothing is listed."""
    return np.where(lists == PAD, PAD, groups[np.maximum(lists, 0)])


def share_pairs(owners: Ints, items: Ints, lists: npt.NDArray[np.integer], item_count: int) -> Bools:
    """Return ``(n, K)``: which listed items occur among the pairs (row, item).

    Parameters
    ----------
    owners, items
        ``(k,)`` pairs, e.g. `SequenceDataset.seen`.
    lists
        ``(n, K)`` items.
    item_count
        I.
    """
    pairs = np.sort(owners * item_count + items)
    if not len(pairs):
        return np.zeros(lists.shape, dtype=np.bool_)
    wanted = np.arange(len(lists))[:, None] * item_count + lists  # (n, K)
    found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    shared: Bools = (pairs[found] == wanted) & (lists != PAD)
    return shared
