"""When each row was asked, in one order over all users: what may be told to a row happened before it.

Most sources have timestamps. Where one has none, something else has to stand in, and says less:

======================  ======================================  ===================================================
what the dataset has    the clock of a row                      what "earlier" then means
======================  ======================================  ===================================================
timestamps              seconds of its target                   it happened before, whoever did it
windows in order        its row id (ids follow the time of the  it happened before; prefix rows have no place in
(global-time, the       targets)                                that order, and nothing is earlier than they are
authors' windows)
order within users      how many events precede its target      for one user: it happened before; for another user
alone                                                           a convention, the same step of a longer walk counts
                                                                as later
======================  ======================================  ===================================================

In no case is a row earlier than itself, and within one sequence the clock never contradicts the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from recdistill.data.sequences import PREFIX, SPLIT_NAMES, Ints, SequenceDataset
from recdistill.types import PAD

ClockKind = Literal["timestamps", "row order", "position in the sequence"]

#: Split rules under which row ids follow the time of the rows' targets.
_ORDERED: Final = ("global-time", "official-windows")


@dataclass(frozen=True, eq=False)
class RowClock:
    """A time for every row of a dataset.

    Attributes
    ----------
    times
        ``(R,)`` int64 by row position; larger is later. `PAD` where nothing is earlier.
    kind
        What the times are: ``timestamps`` (seconds since 1970), ``row order`` or ``position in the sequence``.
    """

    times: Ints
    kind: ClockKind

    @classmethod
    def of(cls, dataset: SequenceDataset) -> RowClock:
        """Return the best clock that a dataset has, see the head of this file."""
        if dataset.timestamps is not None:
            return cls(dataset.timestamps[dataset.row_events].astype(np.int64), "timestamps")
        if dataset.provenance.get("split", {}).get("kind") in _ORDERED:
            prefix = dataset.row_splits == SPLIT_NAMES.index(PREFIX)
            return cls(np.where(prefix, PAD, dataset.row_ids), "row order")
        every = np.arange(len(dataset.row_ids))
        return cls(dataset.history_lengths(every), "position in the sequence")
