"""Which sequences a model may be trained on, so that no row is answered by a model that knows its answer."""

from __future__ import annotations

import numpy as np

from recdistill.data.sequences import Ints, SequenceDataset
from recdistill.errors import ConfigError


def fold_of_row(dataset: SequenceDataset, folds: int, *, seed: int = 0) -> Ints:
    """Return ``(R,)`` the fold of each row, 0..F-1; all rows of a sequence are in one fold.

    The model of fold f is trained on the training rows of all other folds, and answers the training rows of f.

    Parameters
    ----------
    dataset
        The rows.
    folds
        F, from 2 to the number of sequences.
    seed
        Of the deal; the folds' sizes differ by one sequence at most.

    Raises
    ------
    ConfigError
        `folds` is out of range.
    """
    count = len(dataset.offsets) - 1
    if not 2 <= folds <= count:
        raise ConfigError(
            f"folds is {folds}. Allowed: 2 to {count}, the number of sequences. Pass --folds 2, or leave it out: one "
            "model answers all rows."
        )
    deal = np.random.default_rng(seed).permutation(count) % folds  # (U,)
    found: Ints = deal[dataset.row_sequences].astype(np.int64)
    return found
