"""The rows (windows) of train, valid and test over one table of events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.catalogue import Catalogue
from recdistill.errors import DataError
from recdistill.runs import atomic_folder, fingerprint, read_manifest, write_manifest
from recdistill.types import PAD, SPLITS, Split

Ints = npt.NDArray[np.int64]

#: Rows that only a student which supervises all positions learns from: the first events of a user, which
#: the BIGRec windowing rule skips. They lie before the end of the training period like every train row.
PREFIX = "prefix"
#: Names of the codes in `SequenceDataset.row_splits`.
SPLIT_NAMES: tuple[str, ...] = (*SPLITS, PREFIX)


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Sequences of items and the rows cut from them.

    A row is one next-item question: the sequence up to, and without, one event; the event is the answer.
    Rows point into one table of events, so a folder serves windows of any length and costs memory linear in
    the events.

    Attributes
    ----------
    catalogue
        The I items.
    events
        ``(E,)`` item indices, sequence after sequence, oldest first.
    offsets
        ``(U + 1,)`` where each sequence starts.
    row_ids
        ``(R,)`` ascending, unique; assigned after the chronological sort and before any sampling.
    row_events
        ``(R,)`` index of the row's target in `events`.
    row_sequences
        ``(R,)`` index of the row's sequence.
    row_splits
        ``(R,)`` codes into ``("train", "valid", "test", "prefix")``.
    provenance
        JSON-able: name, source, checksums, filters, split rule, counts.
    timestamps
        ``(E,)`` seconds since 1970, or None where only the order is known.
    learned
        Splits whose rows count as training rows, see `learning_from`; never saved.
    """

    catalogue: Catalogue
    events: Ints
    offsets: Ints
    row_ids: Ints
    row_events: Ints
    row_sequences: Ints
    row_splits: npt.NDArray[np.int8]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timestamps: Ints | None = None
    learned: tuple[Split, ...] = ()

    def __post_init__(self) -> None:
        starts = self.offsets[self.row_sequences]
        if len(self.row_ids) and bool((np.diff(self.row_ids) <= 0).any()):
            raise DataError("row ids must be unique and ascending. Build the dataset with recdistill data.")
        if bool((self.row_events <= starts).any()):
            raise DataError("a row has an empty history: every row needs at least one earlier event.")
        if len(self.events) and not 0 <= int(self.events.min()) <= int(self.events.max()) < self.item_count:
            raise DataError(f"an event names an item outside 0..{self.item_count - 1}.")

    @property
    def name(self) -> str:
        """Name of the dataset, for tables."""
        return str(self.provenance.get("name", "dataset"))

    @property
    def item_count(self) -> int:
        """I, the number of items."""
        return len(self.catalogue)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over items, events and rows: two datasets with the same one ask the same questions."""
        arrays = (self.events, self.offsets, self.row_ids, self.row_events, self.row_splits)
        return fingerprint(
            "\n".join(self.catalogue.raw_ids), *(np.ascontiguousarray(a).tobytes() for a in arrays)
        )

    def rows(self, split: Split, *, prefixes: bool = False) -> Ints:
        """Return the positions (not ids) of a split's rows, ascending; `prefixes` adds those of "
        "``prefix``."""
        names: list[str] = [] if split in self.learned else [split]
        if split == "train":
            names += self.learned
        if prefixes:
            names.append(PREFIX)
        return np.flatnonzero(np.isin(self.row_splits, [SPLIT_NAMES.index(name) for name in names]))

    def is_train(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Return ``(n,)``: which of the rows are training rows, without those of ``prefix``."""
        codes = [SPLIT_NAMES.index(name) for name in ("train", *self.learned)]
        told: npt.NDArray[np.bool_] = np.isin(self.row_splits[rows], codes)
        return told

    def learning_from(self, *splits: Split) -> SequenceDataset:
        """Return a view in which rows of other splits are training rows, and are no longer asked.

        For a last training with settings that are fixed. Ids and fingerprint stay, so that a teacher's
        knowledge joins, and so does what was evaluated before.

        Parameters
        ----------
        *splits
            ``valid``, ``test`` or both.
        """
        return self if splits == self.learned else replace(self, learned=splits)

    def with_sequences(self, items: Ints) -> tuple[SequenceDataset, Ints]:
        """Return a dataset with more sequences to train on, and the ids of their rows; nothing before them changes.

        Parameters
        ----------
        items
            ``(W, T + 1)``: every item but the first of each is the target of a training row.

        Returns
        -------
        tuple
            The dataset, without timestamps and with a fingerprint of its own, and ``(W * T,)`` row ids, sequence
            after sequence, above all ids that were there.
        """
        count, width = items.shape
        first_id = int(self.row_ids[-1]) + 1 if len(self.row_ids) else 0
        row_ids = first_id + np.arange(count * (width - 1))
        inside = np.arange(count * width).reshape(count, width)[:, 1:].ravel()  # events that are targets
        joined = replace(
            self,
            events=np.concatenate([self.events, items.ravel()]),
            offsets=np.concatenate([self.offsets, len(self.events) + width * np.arange(1, count + 1)]),
            row_ids=np.concatenate([self.row_ids, row_ids]),
            row_events=np.concatenate([self.row_events, len(self.events) + inside]),
            row_sequences=np.concatenate(
                [self.row_sequences, len(self.offsets) - 1 + np.repeat(np.arange(count), width - 1)]
            ),
            row_splits=np.concatenate([self.row_splits, np.zeros(len(row_ids), dtype=np.int8)]),
            timestamps=None,
        )
        return joined, row_ids

    def positions_of(self, row_ids: npt.ArrayLike) -> Ints:
        """Return the positions of rows by their ids.

        Raises
        ------
        DataError
            An id does not exist.
        """
        wanted = np.asarray(row_ids, dtype=np.int64)
        found = np.searchsorted(self.row_ids, wanted)
        known = np.append(self.row_ids, PAD)  # searchsorted answers R for ids beyond the last
        missing = (known[found] != wanted) | (wanted < 0)
        if bool(missing.any()):
            raise DataError(f"row id {wanted[missing][0]} is not in dataset {self.name!r}.")
        return found

    def targets(self, rows: Ints) -> Ints:
        """Return the ``(n,)`` items to be predicted."""
        return self.events[self.row_events[rows]]

    def history_lengths(self, rows: Ints) -> Ints:
        """Return ``(n,)``: how many events precede each row's target in its sequence."""
        return self.row_events[rows] - self.offsets[self.row_sequences[rows]]

    def histories(self, rows: Ints, length: int) -> Ints:
        """Return ``(n, length)`` the last `length` items before each target, oldest first, `PAD` on the "
        "right."""
        ends = self.row_events[rows]
        counts = np.minimum(self.history_lengths(rows), length)
        return gather_windows(self.events, ends - counts, counts, length)

    def seen(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the whole histories of n rows as pairs ``(k,)``: index 0..n-1 of the row, item."""
        counts = self.history_lengths(rows)
        owners = np.repeat(np.arange(len(rows)), counts)
        first = np.cumsum(counts) - counts
        within = np.arange(len(owners)) - np.repeat(first, counts)
        return owners, self.events[np.repeat(self.offsets[self.row_sequences[rows]], counts) + within]

    @cached_property
    def popularity(self) -> Ints:
        """``(I,)`` how often each item is the target of a training row."""
        return np.bincount(self.targets(self.rows("train")), minlength=self.item_count)

    @cached_property
    def train_event_mask(self) -> npt.NDArray[np.bool_]:
        """``(E,)`` events that training may look at: all up to each sequence's last training target.

        A window row's history counts as seen in training; events after the last training target of their
        sequence, and sequences without any training row, do not.
        """
        train = self.rows("train", prefixes=True)
        last = np.full(len(self.offsets) - 1, -1, dtype=np.int64)
        np.maximum.at(last, self.row_sequences[train], self.row_events[train])
        return np.arange(len(self.events)) <= np.repeat(last, np.diff(self.offsets))

    @cached_property
    def cold_items(self) -> npt.NDArray[np.bool_]:
        """``(I,)`` items that no event names which training may look at: nobody had bought them yet."""
        cold: npt.NDArray[np.bool_] = (
            np.bincount(self.events[self.train_event_mask], minlength=self.item_count) == 0
        )
        return cold

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write ``items.parquet``, ``events.parquet``, ``rows.parquet`` and ``manifest.json``, or nothing.

        Raises
        ------
        RunError
            The folder exists and `overwrite` is False.
        """
        with atomic_folder(Path(folder), overwrite=overwrite) as out:
            self.catalogue.frame.write_parquet(out / "items.parquet")
            sequences = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
            events = pl.DataFrame({"sequence": sequences, "item": self.events})
            if self.timestamps is not None:
                events = events.with_columns(timestamp=pl.Series(self.timestamps))
            events.write_parquet(out / "events.parquet")
            pl.DataFrame(
                {
                    "row_id": self.row_ids,
                    "split": np.array(SPLIT_NAMES)[self.row_splits],
                    "sequence": self.row_sequences,
                    "position": self.row_events - self.offsets[self.row_sequences],
                    "target": self.events[self.row_events],
                }
            ).write_parquet(out / "rows.parquet")
            write_manifest(out, "dataset", {**self.provenance, "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, folder: Path | str) -> SequenceDataset:
        """Read a dataset folder and check it against its fingerprint.

        Raises
        ------
        RunError
            The folder is not a dataset folder.
        DataError
            A file is missing or unreadable, or they do not match the fingerprint in the manifest.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, "dataset")
        items, events, rows = (_read_part(folder / f"{part}.parquet") for part in ("items", "events", "rows"))
        counts = np.bincount(events["sequence"].to_numpy())
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        sequences = rows["sequence"].to_numpy()
        codes = rows["split"].replace_strict(list(SPLIT_NAMES), range(len(SPLIT_NAMES)), return_dtype=pl.Int8)
        dataset = cls(
            catalogue=Catalogue(items),
            events=events["item"].to_numpy().copy(),
            offsets=offsets,
            row_ids=rows["row_id"].to_numpy().copy(),
            row_events=offsets[sequences] + rows["position"].to_numpy(),
            row_sequences=sequences.copy(),
            row_splits=codes.to_numpy().copy(),
            provenance={k: v for k, v in manifest.items() if k not in ("kind", "schema", "fingerprint")},
            timestamps=events["timestamp"].to_numpy().copy() if "timestamp" in events.columns else None,
        )
        if dataset.fingerprint != manifest.get("fingerprint"):
            raise DataError(f"{folder} was changed after it was written. Make it anew with recdistill data.")
        return dataset


def _read_part(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read ({reason}). A dataset folder needs items, events and rows as parquet: "
            "make it anew with recdistill data."
        ) from None


def gather_windows(events: Ints, starts: Ints, counts: Ints, length: int) -> Ints:
    """Return ``(n, length)`` windows ``events[start : start + count]``, padded on the right with `PAD`."""
    steps = np.arange(length)
    index = np.minimum(starts[:, None] + steps, len(events) - 1)  # (n, L)
    return np.where(steps < counts[:, None], events[index], PAD)
