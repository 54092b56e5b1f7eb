"""Training batches: permuted windows or whole sequences, their negatives and the teacher's rows.

Every random draw comes from a generator seeded with (seed, epoch, step), so a run that is resumed at any step
sees the batches it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from recdistill.data.negatives import sample_negatives
from recdistill.data.sequences import SequenceDataset, gather_windows
from recdistill.errors import ConfigError, DataError
from recdistill.knowledge import Knowledge, WithWalks
from recdistill.types import PAD, Batch

Ints = npt.NDArray[np.int64]
Supervision = Literal["last", "all"]

#: Batches in a block of whole sequences that is sorted by length.
_BLOCK = 32


@dataclass(frozen=True, eq=False)
class BatchLoader:
    """Cuts a dataset's training rows into batches.

    Parameters
    ----------
    dataset
        Where the rows come from.
    supervision
        ``"last"``: one window a row, the paper's way. ``"all"``: a pass over a piece of a sequence supervises
        every row in it; the ``prefix`` rows are learned from too.
    length
        L, the longest history.
    batch_size
        Windows (or pieces of sequences) in a batch, over all processes.
    seed
        Seed of permutation and negatives.
    negatives
        Sampled negatives a row, 0 for none.
    knowledge
        The teacher's rows, or None.
    row_ids
        Train on these rows only, or on all if None.
    drawn_from
        ``(m,)`` the items that negatives are drawn from, every item of the training events among them; None: all.
    process, processes
        This process and their number; each takes every `processes`-th window of a batch.
    """

    dataset: SequenceDataset
    supervision: Supervision
    length: int
    batch_size: int
    seed: int = 0
    negatives: int = 0
    knowledge: Knowledge | WithWalks | None = None
    row_ids: Ints | None = None
    drawn_from: Ints | None = None
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.supervision not in ("last", "all"):
            raise ConfigError(f"supervision {self.supervision!r} does not exist. Allowed: last, all.")
        if self.batch_size < self.processes:
            raise ConfigError(f"batch_size {self.batch_size} is smaller than the {self.processes} processes.")
        if not len(self.rows):
            raise DataError(f"dataset {self.dataset.name!r} has no training row to learn from.")

    @cached_property
    def rows(self) -> Ints:
        """Positions of the training rows."""
        rows = self.dataset.rows("train", prefixes=self.supervision == "all")
        if self.row_ids is None:
            return rows
        return rows[np.isin(self.dataset.row_ids[rows], self.row_ids)]

    @cached_property
    def _row_of_event(self) -> Ints:
        """``(E,)`` id of the training row whose target an event is, or `PAD`."""
        owner = np.full(len(self.dataset.events), PAD, dtype=np.int64)
        owner[self.dataset.row_events[self.rows]] = self.dataset.row_ids[self.rows]
        return owner

    @cached_property
    def _pieces(self) -> tuple[Ints, Ints]:
        """Start and length ``(P,)`` of the pieces that cover every training row once.

        Pieces are cut from the newest row backwards, so that only the oldest piece of a sequence is short.
        """
        data, rows = self.dataset, self.rows
        if self.supervision == "last":
            counts = np.minimum(data.history_lengths(rows), self.length)
            return data.row_events[rows] - counts, counts
        first = np.full(len(data.offsets) - 1, len(data.events), dtype=np.int64)  # first and last target
        last = np.full(len(data.offsets) - 1, -1, dtype=np.int64)
        np.minimum.at(first, data.row_sequences[rows], data.row_events[rows])
        np.maximum.at(last, data.row_sequences[rows], data.row_events[rows])
        sequences = np.flatnonzero(last >= 0)
        pieces = -(-(last - first + 1)[sequences] // self.length)
        owner = np.repeat(sequences, pieces)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        stop = last[owner] - within * self.length
        start = np.maximum(stop - self.length, data.offsets[owner])
        return start, stop - start

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._pieces[0]) // self.batch_size)

    def epoch(self, epoch: int, *, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch after the first `skip`; each piece is seen once."""
        order = self._order(np.random.default_rng([self.seed, epoch]))
        for step in range(skip, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(
                chosen[self.process :: self.processes], np.random.default_rng([self.seed, epoch, step])
            )

    def _order(self, generator: np.random.Generator) -> Ints:
        """Permute the pieces; whole sequences are batched with others of about their length.

        Sequences differ much in length, and a batch is as wide as its longest: sorting inside blocks of
        `_BLOCK` batches saves most of the padding and leaves the batches' order and company random.
        """
        order = generator.permutation(len(self._pieces[0]))
        if self.supervision == "last":
            return order
        size = _BLOCK * self.batch_size
        blocks = [order[start : start + size] for start in range(0, len(order), size)]
        counts = self._pieces[1]
        order = np.concatenate([block[np.argsort(counts[block], kind="stable")] for block in blocks])
        whole = len(order) // self.batch_size
        shuffled = generator.permutation(whole)
        kept = whole * self.batch_size
        return np.concatenate([order[:kept].reshape(whole, self.batch_size)[shuffled].ravel(), order[kept:]])

    def _batch(self, chosen: Ints, generator: np.random.Generator) -> Batch:
        starts, counts = self._pieces[0][chosen], self._pieces[1][chosen]
        events = self.dataset.events
        width = self.length if self.supervision == "last" else int(counts.max())
        history = gather_windows(events, starts, counts, width)  # (B, L)
        if self.supervision == "last":
            positions, owner = None, np.arange(len(chosen))
            answers = starts + counts  # event index of each target
        else:
            following = np.minimum(starts[:, None] + np.arange(1, width + 1), len(events) - 1)  # (B, L)
            supervised = (self._row_of_event[following] != PAD) & (np.arange(width) < counts[:, None])
            positions = np.flatnonzero(supervised)
            owner, answers = positions // width, following[supervised]
        targets, row_ids = events[answers], self._row_of_event[answers]
        sampled = self._negatives(generator, targets, history, owner) if self.negatives else None
        rows = torch.from_numpy(row_ids)
        return Batch(
            history=torch.from_numpy(history),
            lengths=torch.from_numpy(counts),
            positions=None if positions is None else torch.from_numpy(positions),
            targets=torch.from_numpy(targets),
            row_ids=rows,
            negatives=None if sampled is None else torch.from_numpy(sampled),
            knowledge=None if self.knowledge is None else self.knowledge.rows_for(rows),
        )

    def _negatives(self, generator: np.random.Generator, targets: Ints, history: Ints, owner: Ints) -> Ints:
        """Draw ``(S, n)`` items; those of a part of the catalogue are numbered anew, drawn, and named again."""
        items = self.drawn_from
        if items is None:
            return sample_negatives(
                generator, targets, history, owner, self.negatives, self.dataset.item_count
            )
        place = np.full(self.dataset.item_count + 1, PAD)  # the last entry answers for PAD = -1
        place[items] = np.arange(len(items))
        drawn = sample_negatives(generator, place[targets], place[history], owner, self.negatives, len(items))
        return items[drawn]
