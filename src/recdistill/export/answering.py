"""Answering a frame of histories at the speed of the student: ids by hash, histories of like length together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recdistill.data.sequences import gather_windows
from recdistill.errors import ConfigError, DataError
from recdistill.export.recommender import Recommender
from recdistill.export.screened_top_k import best_items

Ints = npt.NDArray[np.int64]
UNKNOWN: Final = ("refuse", "skip")


@dataclass(frozen=True)
class Options:
    """How histories are answered; see `recdistill.export.batch.recommend_file`."""

    k: int
    exclude_seen: bool
    unknown: str
    batch_size: int


@dataclass(frozen=True, eq=False)
class Histories:
    """n histories as item indices, one after the other.

    Attributes
    ----------
    items
        ``(T,)``.
    offsets
        ``(n + 1,)`` where each begins.
    """

    items: Ints
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """``(n,)`` items of each."""
        return np.diff(self.offsets)


class Answering:
    """A recommender made ready to answer frames.

    Parameters
    ----------
    recommender
        Who answers.
    options
        How.

    Raises
    ------
    ConfigError
        k is larger than the catalogue.
    """

    def __init__(self, recommender: Recommender, options: Options) -> None:
        if not 1 <= options.k <= len(recommender.catalogue):
            raise ConfigError(
                f"k is {options.k}. Allowed: 1 to {len(recommender.catalogue)}, the number of items. Pass -k 20."
            )
        self.recommender, self.options = recommender, options
        model = recommender.model
        self.best = best_items(model.output_encoder.table().float(), model.item_bias)
        self._ids = pl.Enum(recommender.catalogue.raw_ids)
        self._raw = recommender.catalogue.frame["item_id"]

    def answer(self, frame: pl.DataFrame, first: int = 0) -> pl.DataFrame:
        """Return the frame without ``history``, with ``items`` and ``scores``.

        Parameters
        ----------
        frame
            With the list column ``history``.
        first
            The number of its first row in the file, for messages.

        Raises
        ------
        DataError
            A history is empty or names an unknown item, and unknown items are refused.
        """
        histories = self.read(frame["history"], first)
        items = np.zeros((frame.height, self.options.k), dtype=np.int64)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        newest = np.minimum(histories.lengths, self.recommender.length)
        order = np.argsort(newest, kind="stable")
        order = order[newest[order] > 0]
        for start in range(0, len(order), self.options.batch_size):
            rows = np.sort(order[start : start + self.options.batch_size])
            scores[rows], items[rows] = self._batch(histories, rows)
        return frame.drop("history").with_columns(*self._lists(items, scores))

    def read(self, column: pl.Series, first: int = 0) -> Histories:
        """Return item indices of a list column of raw ids or titles."""
        counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        names = column.filter(column.list.len().fill_null(0) > 0).explode().cast(pl.String)
        found = names.cast(self._ids, strict=False).to_physical().cast(pl.Int64)
        items = found.fill_null(-1).to_numpy().copy()
        if (items < 0).any():
            items[items < 0] = self._by_title(names.filter(found.is_null()))
        owner = np.repeat(np.arange(len(counts)), counts)
        known = items >= 0
        if self.options.unknown == "refuse":
            self._refuse(names, known, owner, counts, first)
        lengths = np.bincount(owner[known], minlength=len(counts))
        return Histories(items[known], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    def _by_title(self, names: pl.Series) -> Ints:
        """Return the items of titles, -1 where there is none; each distinct name is looked up once."""
        distinct = names.unique().drop_nulls().to_list()
        found: dict[str | None, int] = {}
        for name in distinct:
            item = self.recommender.catalogue.find(name)
            found[name] = -1 if item is None else item
        return np.array([found.get(name, -1) for name in names.to_list()], dtype=np.int64)

    def _refuse(
        self, names: pl.Series, known: npt.NDArray[np.bool_], owner: Ints, counts: Ints, first: int
    ) -> None:
        hint = "Pass --unknown skip to leave such items out."
        if not known.all():
            place = int(np.argmin(known))
            raise DataError(
                f"history {first + int(owner[place])} names {names[place]!r}, which is no id and no title of the "
                f"{len(self._raw)} items; {int((~known).sum())} such in this shard. {hint}"
            )
        if not counts.all():
            raise DataError(
                f"history {first + int(np.argmin(counts))} is empty. Allowed: at least one item. {hint}"
            )

    def _batch(self, histories: Histories, rows: Ints) -> tuple[npt.NDArray[np.float32], Ints]:
        """Return ``(b, k)`` scores and items of some rows."""
        ends, counts = histories.offsets[rows + 1], histories.lengths[rows]
        newest = np.minimum(counts, self.recommender.length)
        grid = torch.from_numpy(gather_windows(histories.items, ends - newest, newest, int(newest.max())))
        with torch.no_grad():
            hidden = self.recommender.model.encode(grid, torch.from_numpy(newest))
        seen = None
        if self.options.exclude_seen:
            owner = np.repeat(np.arange(len(rows)), counts)
            first = np.cumsum(counts) - counts
            places = np.arange(len(owner)) + np.repeat(ends - counts - first, counts)
            seen = torch.from_numpy(owner), torch.from_numpy(histories.items[places])
        values, items = self.best(hidden.float(), self.options.k, seen=seen)
        return values.numpy(), items.numpy()

    def _lists(self, items: Ints, scores: npt.NDArray[np.float32]) -> tuple[pl.Series, pl.Series]:
        """Return the columns ``items`` and ``scores`` without the places that are no recommendation."""
        real = np.isfinite(scores)
        counts = pl.Series("n", real.sum(1))
        names = self._raw.gather(items[real]).alias("items")
        return _nested(names, counts), _nested(pl.Series("scores", scores[real]), counts)


def _nested(values: pl.Series, counts: pl.Series) -> pl.Series:
    """Return the values as lists of the given lengths; an empty one stays an empty list."""
    owner = pl.Series("row", np.repeat(np.arange(len(counts)), counts.to_numpy().astype(np.int64)))
    lengths = counts.to_numpy()
    if len(lengths) and lengths[0] and (lengths == lengths[0]).all():
        width = int(lengths[0])
        return values.reshape((len(counts), width)).cast(pl.List(values.dtype)).alias(values.name)
    lists = pl.DataFrame([owner, values]).group_by("row", maintain_order=True).agg(pl.col(values.name))
    every = pl.DataFrame({"row": np.arange(len(counts))}).with_columns(pl.col("row").cast(owner.dtype))
    joined = every.join(lists, on="row", how="left", maintain_order="left")[values.name]
    return joined.fill_null(pl.Series([[]], dtype=pl.List(values.dtype)).first()).alias(values.name)
