"""How rows become passes through a language model: pieces of sequences, tokens of items, batches of even width.

A row asks what follows one event. A causal model that reads a sequence answers at every position, so all rows
of a sequence share one pass. Sequences longer than L items are cut into pieces that overlap: piece k covers the
items ``kS .. kS + L - 1`` of its sequence, and the row whose last known item is number j is answered in

    k(j) = max(0, ceil((j - L + 1) / S)),    S = max(1, L // 2),                                       (1)

the first piece that holds j. So a row sees all of its history or at least ``L - S`` items of it, and which
ones depends on the row alone, never on the rows that are asked with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]

#: Batches in a block of pieces that is sorted by width: little padding, and company that still changes.
_BLOCK = 16


@dataclass(frozen=True, eq=False)
class Segments:
    """The tokens that stand for each item, one list an item; the last one's position answers.

    Attributes
    ----------
    tokens
        ``(T,)`` token ids, item after item; ``vocabulary + i`` is the soft token of item i.
    offsets
        ``(I + 1,)`` where each item's tokens start.
    prefix
        ``(p,)`` tokens in front of every history.
    vocabulary
        Number of word tokens of the language model.
    """

    tokens: Ints
    offsets: Ints
    prefix: Ints
    vocabulary: int

    @property
    def lengths(self) -> Ints:
        """``(I,)`` tokens of each item, at least 1."""
        return np.diff(self.offsets)


def segments(
    texts: Sequence[Sequence[int]] | None,
    item_count: int,
    vocabulary: int,
    *,
    soft: bool = True,
    prefix: Sequence[int] = (),
) -> Segments:
    """Return each item's tokens: those of its text, if any, then its soft token.

    Parameters
    ----------
    texts
        I lists of word tokens, or None: the soft token alone stands for an item.
    item_count
        I.
    vocabulary
        Number of word tokens; soft tokens are numbered after them.
    soft
        Whether a soft token ends each item. An item without text has one in any case.
    prefix
        Word tokens in front of every history.
    """
    words = [[] for _ in range(item_count)] if texts is None else texts
    lists = [[*line, vocabulary + i] if soft or not line else [*line] for i, line in enumerate(words)]
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lists])]).astype(np.int64)
    tokens = np.fromiter((t for line in lists for t in line), dtype=np.int64, count=int(offsets[-1]))
    return Segments(tokens, offsets, np.asarray(prefix, dtype=np.int64), vocabulary)


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """Some pieces as tokens.

    Attributes
    ----------
    tokens
        ``(B, T)``, `PAD` on the right.
    ends
        ``(S,)`` indices into the flattened ``(B * T)`` grid: the positions that answer.
    rows
        ``(S,)`` positions of the rows that are answered there.
    """

    tokens: Ints
    ends: Ints
    rows: Ints


@dataclass(frozen=True, eq=False)
class Plan:
    """The passes that answer some rows.

    Attributes
    ----------
    dataset
        Where rows and events come from.
    segments
        The tokens of the items.
    rows
        ``(n,)`` positions of the rows, ordered by piece.
    within
        ``(n,)`` number of the last known item of each row inside its piece.
    bounds
        ``(P + 1,)`` where each piece's rows start.
    starts
        ``(P,)`` first event of each piece.
    """

    dataset: SequenceDataset
    segments: Segments
    rows: Ints
    within: Ints
    bounds: Ints
    starts: Ints

    @classmethod
    def of(cls, dataset: SequenceDataset, segments: Segments, rows: Ints, length: int) -> Plan:
        """Cut the sequences of the rows into pieces of at most `length` items, eq. 1."""
        last = dataset.history_lengths(rows) - 1  # j
        stride = max(1, length // 2)
        piece = np.maximum(0, -((length - 1 - last) // stride))  # k, as ceil((j - L + 1) / S)
        first = dataset.offsets[dataset.row_sequences[rows]] + piece * stride  # (n,) first event
        order = np.lexsort((last, first))
        starts, counts = np.unique(first, return_counts=True)
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        within = (dataset.row_events[rows] - 1 - first)[order]
        return cls(dataset, segments, rows[order], within, bounds, starts)

    @cached_property
    def counts(self) -> Ints:
        """``(P,)`` items of each piece: up to its last row's last known item."""
        return self.within[self.bounds[1:] - 1] + 1

    @cached_property
    def _event_tokens(self) -> Ints:
        """``(E + 1,)`` tokens before each event."""
        return np.concatenate([[0], np.cumsum(self.segments.lengths[self.dataset.events])])

    @cached_property
    def widths(self) -> Ints:
        """``(P,)`` tokens of each piece."""
        ends = self._event_tokens[self.starts + self.counts]
        widths: Ints = len(self.segments.prefix) + ends - self._event_tokens[self.starts]
        return widths

    @property
    def items(self) -> Ints:
        """Items that the passes read, with repeats."""
        owner, number = _ranges(self.counts)
        items: Ints = self.dataset.events[self.starts[owner] + number]
        return items

    def in_order(self, budget: int) -> list[Ints]:
        """Return batches of pieces, the narrow ones first; each is at most `budget` tokens, or one piece."""
        return _cut(np.argsort(self.widths, kind="stable"), self.widths, budget)

    def shuffled(self, budget: int, generator: np.random.Generator) -> list[Ints]:
        """Return batches of pieces in random order and company, still with little padding."""
        order = generator.permutation(len(self.starts))
        mean = max(1.0, float(self.widths.mean())) if len(order) else 1.0
        size = max(1, round(_BLOCK * budget / mean))
        blocks = [order[start : start + size] for start in range(0, len(order), size)]
        parts = [_cut(b[np.argsort(self.widths[b], kind="stable")], self.widths, budget) for b in blocks]
        batches = [batch for part in parts for batch in part]
        return [batches[index] for index in generator.permutation(len(batches))]

    def rows_in(self, pieces: Ints) -> int:
        """Return how many rows the pieces answer."""
        return int((self.bounds[pieces + 1] - self.bounds[pieces]).sum())

    def batch(self, pieces: Ints) -> TokenBatch:
        """Return the tokens of the pieces and where their rows are answered."""
        counts, prefix = self.counts[pieces], self.segments.prefix
        owner, number = _ranges(counts)  # one entry an item
        events = self.starts[pieces][owner] + number
        base = self._event_tokens[self.starts[pieces]] - len(prefix)
        width = int(self.widths[pieces].max())
        tokens = np.full((len(pieces), width), PAD, dtype=np.int64)
        tokens[:, : len(prefix)] = prefix
        which, inside = _ranges(self.segments.lengths[self.dataset.events[events]])  # one entry a token
        column = self._event_tokens[events[which]] + inside - base[owner[which]]
        item = self.dataset.events[events[which]]
        tokens[owner[which], column] = self.segments.tokens[self.segments.offsets[item] + inside]
        asked, slot = _ranges(self.bounds[pieces + 1] - self.bounds[pieces])  # one entry a row
        index = self.bounds[pieces][asked] + slot
        after = self._event_tokens[self.starts[pieces][asked] + self.within[index] + 1] - base[asked]
        return TokenBatch(tokens, asked * width + after - 1, self.rows[index])


def item_tokens(
    titles: Sequence[str], encode: Callable[[str], list[int]], surface: str, longest: int
) -> list[list[int]]:
    """Return each title's word tokens, cut after `longest`; none for an item without title.

    Parameters
    ----------
    titles
        I titles, empty where there is none.
    encode
        Text to word tokens, without special tokens.
    surface
        How a title is written, with ``{title}`` in it.
    longest
        Tokens kept of each.
    """
    return [encode(surface.format(title=title))[:longest] if title else [] for title in titles]


def _cut(order: Ints, widths: Ints, budget: int) -> list[Ints]:
    """Cut pieces, sorted by width, where one more would make (pieces x widest) more than `budget`."""
    batches: list[Ints] = []
    start = 0
    for end, width in enumerate(widths[order].tolist(), 1):
        if end - start > 1 and (end - start) * width > budget:
            batches.append(order[start : end - 1])
            start = end - 1
    return [*batches, order[start:]] if start < len(order) else batches


def _ranges(counts: Ints) -> tuple[Ints, Ints]:
    """Return for ``counts = [2, 3]``: owners ``[0, 0, 1, 1, 1]`` and numbers ``[0, 1, 0, 1, 2]``."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
