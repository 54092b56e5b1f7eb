"""At which moments a user is described, of which of his events, and which rows may read it.

What is written of a user may be read by a row only if everything it was written of happened before the row's answer.
KAR cuts a user's history once, at half of his training events and at most at a cap, and trains on what comes after;
SLIM describes a user at the end of the training period. Here a user has any number of moments, as shares of his
training events, and each row reads the newest text it may.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.types import PAD, Split

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Keep = Literal["first", "last"]


@dataclass(frozen=True, eq=False)
class Moments:
    """V moments, ascending by their newest event.

    Attributes
    ----------
    users
        ``(V,)`` sequences of the dataset.
    starts, newest
        ``(V,)`` first and last of the events (indices into ``dataset.events``) that are told.
    """

    users: Ints
    starts: Ints
    newest: Ints

    def __len__(self) -> int:
        return len(self.users)

    def told(self, dataset: SequenceDataset, moment: int) -> list[int]:
        """Return the items that are told at a moment, oldest first."""
        items: list[int] = dataset.events[self.starts[moment] : self.newest[moment] + 1].tolist()
        return items


def may_be_told(dataset: SequenceDataset) -> Bools:
    """Return ``(E,)`` bool: events of the training period.

    Those that training may look at (`SequenceDataset.train_event_mask`); where the split is by time, also events of
    users without a training row, as far as they happened strictly before the first answer of valid and test.
    """
    told = dataset.train_event_mask.copy()
    held_out = np.concatenate([dataset.row_events[dataset.rows(split)] for split in ("valid", "test")])
    by_time = dataset.provenance.get("split", {}).get("kind") == "global-time"
    if by_time and dataset.timestamps is not None and len(held_out):
        told |= dataset.timestamps < dataset.timestamps[held_out].min()
    told[held_out] = False
    return told


def moments(
    dataset: SequenceDataset,
    cuts: Sequence[float] = (0.5,),
    *,
    most: int = 15,
    keep: Keep = "first",
    each_row: Sequence[Split] = (),
) -> Moments:
    """Return when users are described; moments at which no item with a title is told are left out.

    Parameters
    ----------
    dataset
        Whose users.
    cuts
        Shares of a user's n training events, above 0 and up to 1: a moment comes after the first ``ceil(share * n)``.
    most
        At most so many events are told.
    keep
        Which, where there are more: the ``first`` (then the moment comes after them), or the ``last``.
    each_row
        Splits whose every row has a moment of its own as well, after all that happened before its answer.

    Raises
    ------
    ConfigError
        A share or `most` is out of range, or `keep` does not exist.
    """
    if not all(0 < cut <= 1 for cut in cuts) or most < 1 or keep not in ("first", "last"):
        raise ConfigError(
            f"moments with cuts={list(cuts)}, most={most}, keep={keep!r} are not possible. Allowed: shares above 0 and "
            "up to 1; from 1; first or last. Pass cuts=[0.5,1]."
        )
    first = dataset.offsets[:-1]
    sums = np.concatenate([[0], np.cumsum(may_be_told(dataset))])
    counts = sums[dataset.offsets[1:]] - sums[first]  # (U,) they are the first of each sequence
    ends = [first + np.ceil(cut * counts).astype(np.int64) for cut in cuts]
    owners = [np.flatnonzero(counts > 0)] * len(ends)
    ends = [end[owner] for end, owner in zip(ends, owners, strict=True)]
    before = first_of_tie(dataset)
    for split in each_row:
        rows = dataset.rows(split)
        ends.append(before[dataset.row_events[rows]])
        owners.append(dataset.row_sequences[rows])
    stop, user = np.concatenate(ends), np.concatenate(owners)
    stop = np.minimum(stop, first[user] + most) if keep == "first" else stop
    newest, at = np.unique(stop[stop > first[user]] - 1, return_index=True)
    user = user[stop > first[user]][at]
    starts = first[user] if keep == "first" else np.maximum(first[user], newest + 1 - most)
    titled = np.array([bool(title) for title in dataset.catalogue.titles], dtype=bool)[dataset.events]
    titles = np.concatenate([[0], np.cumsum(titled)])
    some = titles[newest + 1] > titles[starts]
    return Moments(user[some], starts[some], newest[some])


def first_of_tie(dataset: SequenceDataset) -> Ints:
    """Return ``(E,)`` the first event of the same sequence at the same second; itself where there are no times."""
    index = np.arange(len(dataset.events))
    if dataset.timestamps is None:
        return index
    begins = np.ones(len(index), dtype=bool)
    begins[1:] = np.diff(dataset.timestamps) != 0
    begins[dataset.offsets[:-1][np.diff(dataset.offsets) > 0]] = True
    first: Ints = np.maximum.accumulate(np.where(begins, index, 0))
    return first


def readable(dataset: SequenceDataset, made: Moments) -> tuple[Ints, Ints]:
    """Return which rows may read a text, ``(N,)`` ascending row ids, and the newest text each may read, ``(N,)``.

    A text may be read if its newest event came before the row's answer, and not in the same second.
    """
    limit = first_of_tie(dataset)[dataset.row_events]  # (R,) events before this one happened earlier
    at = np.searchsorted(made.newest, limit, side="left") - 1
    known = (at >= 0) & (len(made) > 0)
    at = np.where(known, at, PAD)
    if len(made):
        known &= made.users[at] == dataset.row_sequences
    order = np.argsort(dataset.row_ids[known])
    return dataset.row_ids[known][order], at[known][order]
