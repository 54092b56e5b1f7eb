"""Honest ranks for the weights: of models that never saw the answer they are asked for.

Two models that were fitted to the same rows rank most of their true items first, so that no gap is left to weigh. Here
pairs of models are trained, each on its true items alone and without some rows, and rank exactly those.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.runs import atomic_file
from recdistill.teachers.folds import fold_of_row

Ints = npt.NDArray[np.int64]
#: ``(number, rows learned from, rows asked)`` to the 1-based ranks ``(n,)`` of student and language model.
Pair = Callable[[int, Ints, Ints], tuple[Ints, Ints]]


def held_out_ranks(
    dataset: SequenceDataset, rows: Ints, path: Path, pair: Pair, *, how: str, folds: int, seed: int
) -> tuple[Ints, Ints]:
    """Return the ranks ``(N,)`` of student and language model, measured now or read from `path`.

    Parameters
    ----------
    dataset
        Where the rows come from.
    rows
        ``(N,)`` positions of the training rows, ascending.
    path
        Parquet file of row_id, student, teacher.
    pair
        Trains one pair and lets it rank.
    how
        ``folds``: sequences are dealt into shares. ``positions``: the last row of each sequence is left out, and its
        ranks stand for all rows of the sequence.
    folds
        Shares, at least 2.
    seed
        Of the deal.

    Raises
    ------
    ConfigError
        With ``positions``, every sequence has but one training row.
    """
    ids = dataset.row_ids[rows]
    if path.is_file():
        known = pl.DataFrame({"row_id": ids}).join(
            pl.read_parquet(path), on="row_id", how="left", maintain_order="left"
        )
        return known["student"].to_numpy(), known["teacher"].to_numpy()
    found = np.zeros((2, len(rows)), dtype=np.int64)
    if how == "positions":
        last, owner = last_rows(dataset, rows)
        rest = np.setdiff1d(rows, last)
        if not len(rest):
            raise ConfigError(
                f"dataset {dataset.name!r} has one training row a sequence at most: without the last one nothing is "
                "left to learn from. Allowed: ranks=folds, live or answers. Pass ranks=folds"
            )
        found[:] = np.stack(pair(0, rest, last))[:, owner]
    else:
        fold = fold_of_row(dataset, folds, seed=seed)[rows]
        for number in range(folds):
            asked = fold == number
            if asked.any():
                found[:, asked] = np.stack(pair(number, rows[~asked], rows[asked]))
    with atomic_file(path) as temporary:
        pl.DataFrame({"row_id": ids, "student": found[0], "teacher": found[1]}).write_parquet(temporary)
    return found[0], found[1]


def last_rows(dataset: SequenceDataset, rows: Ints) -> tuple[Ints, Ints]:
    """Return the last of the rows in each sequence, ascending, and ``(N,)`` which of them is of each row's sequence.

    Parameters
    ----------
    dataset
        Where the rows come from.
    rows
        ``(N,)`` positions.
    """
    order = np.lexsort((dataset.row_events[rows], dataset.row_sequences[rows]))
    sequences, first = np.unique(dataset.row_sequences[rows][order], return_index=True)
    last = rows[order[np.append(first[1:], len(rows)) - 1]]  # (U,), by sequence
    by_position = np.argsort(last)
    place = np.empty(len(last), dtype=np.int64)
    place[by_position] = np.arange(len(last))
    return last[by_position], place[np.searchsorted(sequences, dataset.row_sequences[rows])]
