"""How hard a row is for a student, without looking at the answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from recdistill.data.sequences import SequenceDataset
from recdistill.evaluate.ranks import Scorer, ask
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def session_difficulty(
    scorer: Scorer,
    dataset: SequenceDataset,
    rows: Ints,
    *,
    length: int,
    batch_size: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Floats:
    """Return ``(n,)`` minus the mean sigmoid of the scores that a student gives to the items of the history itself.

    ALKDRec, Du et al., AAAI 2025: a history that the student would hardly have recommended does not hang together
    for it. No label is looked at, so that valid and test rows can be asked about too.

    Parameters
    ----------
    scorer
        As in `recdistill.evaluate.target_ranks`.
    dataset
        The dataset of the rows.
    rows
        ``(n,)`` positions of rows.
    length
        L, how many of the last items the scorer is shown, and are looked at.
    batch_size
        Rows scored at once.
    progress
        Called with the number of rows that were just finished.
    """
    difficulty = np.empty(len(rows))
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        history = dataset.histories(chunk, length)  # (B, L)
        scores = np.asarray(ask(scorer, dataset, chunk, length), np.float64)  # (B, I)
        there = history != PAD
        own = expit(np.take_along_axis(scores, np.where(there, history, 0), axis=1))  # (B, L)
        difficulty[start : start + len(chunk)] = -np.where(there, own, 0.0).sum(1) / there.sum(1)
        if progress is not None:
            progress(len(chunk))
    return difficulty
