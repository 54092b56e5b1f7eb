"""Sampled items that are no answer: for BCE, BPR, gBCE and ranking losses."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from recdistill.errors import DataError
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MOST_COMPARISONS: Final = 1 << 20  # above this many, look items up in a sorted list: memory stays linear
_ROUNDS: Final = 16
_MOST_CELLS: Final = 1 << 22


def sample_negatives(
    rng: np.random.Generator, targets: Ints, history: Ints, owner: Ints, n: int, item_count: int
) -> Ints:
    """Draw n items for each row, uniformly among those that are neither its target nor in its history.

    The n items are drawn independently, so one can come twice. A row whose history and target are the whole
    catalogue gets any item but its target.

    Parameters
    ----------
    rng
        Source of chance.
    targets
        ``(S,)`` items to be predicted.
    history
        ``(B, L)`` items, `PAD` where there is none.
    owner
        ``(S,)`` row of `history` that each target belongs to.
    n
        Items a row.
    item_count
        I.

    Returns
    -------
    ndarray
        ``(S, n)`` int64.

    Raises
    ------
    DataError
        There are fewer than two items.
    """
    if item_count < 2:
        raise DataError(
            f"negatives need at least 2 items, and the catalogue has {item_count}. Use a larger one."
        )
    drawn = rng.integers(0, item_count, size=(len(targets), n))  # (S, n)
    rows, columns = np.divmod(np.flatnonzero(_taken(drawn, targets, history, owner)), max(n, 1))
    for _ in range(_ROUNDS):
        if not len(rows):
            return drawn
        again = rng.integers(0, item_count, size=len(rows))
        drawn[rows, columns] = again
        wrong = _taken(again[:, None], targets[rows], history, owner[rows])[:, 0]
        rows, columns = rows[wrong], columns[wrong]
    chunk = max(1, _MOST_CELLS // item_count)
    for start in range(0, len(rows), chunk):  # few rows are left: those that know almost every item
        part = slice(start, start + chunk)
        some = rows[part]
        drawn[some, columns[part]] = _exactly(rng, targets[some], history[owner[some]], item_count)
    return drawn


def _taken(drawn: Ints, targets: Ints, history: Ints, owner: Ints) -> Bools:
    """Return ``(S, n)``: whether a drawn item is the row's target or in its history."""
    taken: Bools = drawn == targets[:, None]
    if drawn.size * history.shape[1] <= _MOST_COMPARISONS:
        taken |= (drawn[:, :, None] == history[owner][:, None, :]).any(axis=2)
        return taken
    base = 1 + max(int(drawn.max()), int(history.max(initial=0)))
    rows, places = np.nonzero(history != PAD)
    keys = np.sort(rows * base + history[rows, places])  # one number per (row of history, item)
    wanted = owner[:, None] * base + drawn
    if len(keys):
        taken |= keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return taken


def _exactly(rng: np.random.Generator, targets: Ints, history: Ints, item_count: int) -> Ints:
    """Draw one allowed item for each row from the list of all allowed items."""
    rows = np.arange(len(targets))
    allowed = np.ones((len(targets), item_count + 1), dtype=bool)  # the last column takes the pads
    allowed[rows[:, None], np.where(history == PAD, item_count, history)] = False
    allowed[rows, targets] = False
    allowed = allowed[:, :item_count]
    nothing = ~allowed.any(axis=1)
    allowed[nothing] = True
    allowed[rows[nothing], targets[nothing]] = False
    weights = (1 - rng.random(allowed.shape, dtype=np.float32)) * allowed  # (0, 1] where allowed
    drawn: Ints = weights.argmax(axis=1)
    return drawn


def shared_negatives(
    rng: np.random.Generator, n: int, *, item_count: int, popularity: npt.ArrayLike | None = None
) -> Ints:
    """Draw n items that all rows of a batch share, with replacement.

    Parameters
    ----------
    rng
        Source of chance.
    n
        How many.
    item_count
        I.
    popularity
        ``(I,)`` weights, e.g. `SequenceDataset.popularity`; uniform if None.

    Returns
    -------
    ndarray
        ``(n,)`` int64.

    Raises
    ------
    DataError
        The weights do not fit, are negative, or are all zero.
    """
    if popularity is None:
        return rng.integers(0, item_count, size=n)
    weights = np.asarray(popularity, dtype=np.float64)
    if weights.shape != (item_count,) or bool((weights < 0).any()) or not weights.sum() > 0:
        raise DataError(
            f"popularity has shape {weights.shape} and sum {weights.sum()}. Allowed: {item_count} weights "
            "of 0 or more, not all zero. Pass dataset.popularity."
        )
    steps = np.cumsum(weights)
    drawn: Ints = np.searchsorted(steps, rng.random(n) * steps[-1], side="right")
    return drawn
