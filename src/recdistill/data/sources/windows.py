"""The authors' window files: ``seq, len_seq, next``, one next-item question a line, already split.

The item index is the official id, so the files of the authors' teacher fit without any conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.catalogue import Catalogue
from recdistill.data.files import find_file, need_file, need_folder, read_table, sources_of
from recdistill.data.sequences import SPLIT_NAMES, SequenceDataset
from recdistill.errors import DataError
from recdistill.types import SPLITS

Ints = npt.NDArray[np.int64]

_LEAST_OVERLAP = 3  # items that two windows share for certain to be of one stretch, if one between is missing


@dataclass(frozen=True, eq=False)
class Windows:
    """One file: ``(W, L)`` padded histories, ``(W,)`` lengths, targets and users (None where not told)."""

    history: Ints
    lengths: Ints
    targets: Ints
    users: Ints | None


def find_window_files(folder: Path | str) -> dict[str, Path]:
    """Return ``train``, ``valid``, ``test`` and, if there, ``items``, found by the authors' names for them.

    Raises
    ------
    DataError
        A window file is missing.
    """
    names = {
        "train": ("train_data.csv", "train_reconstructed.csv"),
        "valid": ("val_data.csv",),
        "test": ("test_data.csv",),
    }
    place, page = need_folder(folder), "https://github.com/istarryn/DLLM2Rec (folder data)"
    found = {split: need_file(place, *files, where_from=page) for split, files in names.items()}
    items = find_file(place, "item_map.tsv")
    return found if items is None else {**found, "items": items}


def read_windows(
    train: Path | str,
    valid: Path | str,
    test: Path | str,
    *,
    items: Path | str | None = None,
    more_items: Path | str | None = None,
    item_count: int | None = None,
    min_support: float = 0.8,
    user_column: str | None = None,
    name: str = "dllm2rec-windows",
    provenance: Mapping[str, Any] | None = None,
) -> SequenceDataset:
    """Read the three window files into a dataset.

    Where the train file names the user of each window, his windows that overlap are joined into one sequence
    (also across windows that are missing between them), so that no event occurs twice, and the items before
    his first target become prefix rows. All other windows are sequences of their own.

    Row ids: train, valid, test, each in the order of its file, then the prefix rows.

    Parameters
    ----------
    train, valid, test
        csv files with the columns ``seq`` (a list in brackets, padded with the number of items), ``len_seq``,
        ``next``.
    items
        Table of titles: an id column (``item_id`` or one that ends in ``_id``), ``title``, optionally
        ``support`` in 0..1: rows below `min_support` give no title.
    more_items
        Another such table for ids that `items` does not name, e.g. items that occur in training only.
    item_count
        I; by default the padding id, and without any padding the greatest id + 1.
    min_support
        See `items`.
    user_column
        The train file's column of users; by default the one whose name begins with ``user``, if any.
    name
        Of the dataset.
    provenance
        Added to the manifest.

    Raises
    ------
    DataError
        A file is absent or malformed, or an id is out of range.
    """
    paths = dict(zip(SPLITS, map(Path, (train, valid, test)), strict=True))
    parts = {split: _read(path, user_column if split == "train" else None) for split, path in paths.items()}
    count = item_count or _item_count(parts.values())
    parts = {split: _checked(part, count, paths[split].name) for split, part in parts.items()}
    sequences, prefixes = zip(*(_stitch(part) for part in parts.values()), strict=True)
    tables = [Path(table) if table is not None else None for table in (items, more_items)]
    counts = {
        "items": count,
        "interactions": None,  # windows overlap: the log itself is not among the files
        "windows": {split: len(part.targets) for split, part in parts.items()},
        "train_sequences": len(sequences[0].sizes),
        "users": None if parts["train"].users is None else len(np.unique(parts["train"].users)),
    }
    catalogue = _titles(tables, count, min_support)
    return _joined(
        catalogue,
        list(sequences),
        prefixes[0],
        {
            "name": name,
            "source": {"format": "dllm2rec-windows", "files": sources_of([*paths.values(), *tables])},
            "split": {"kind": "official-windows", "min_support": min_support},
            "counts": counts,
            "titles": catalogue.title_report(),
            **(provenance or {}),
        },
    )


def _read(path: Path, user_column: str | None) -> Windows:
    """Read one file; the list column is parsed as JSON."""
    table = read_table(path)
    missing = [column for column in ("seq", "len_seq", "next") if column not in table.columns]
    if missing:
        raise DataError(
            f"{path.name} has no column {missing[0]!r} (it has {', '.join(table.columns)}). Needed: seq, "
            "len_seq, next."
        )
    try:
        lists = table["seq"].str.json_decode(pl.List(pl.Int64))
        numbers = table.select(pl.col("len_seq", "next").cast(pl.Float64).cast(pl.Int64))
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path.name} holds a row that is no window ({reason}). Allowed: seq a list of whole numbers "
            "such as "
            '"[3, 7, 9]", len_seq and next whole numbers. Mend the file.'
        ) from None
    sizes = lists.list.len()
    if lists.null_count() or numbers.null_count().sum_horizontal()[0] or sizes.n_unique() > 1:
        raise DataError(
            f"{path.name}: every seq needs the same length, and no field may be empty. Pad with the item "
            "count."
        )
    users = None
    column = user_column or next((c for c in table.columns if c.startswith("user")), None)
    if column is not None:
        if column not in table.columns:
            raise DataError(f"{path.name} has no column {column!r}. Allowed: {', '.join(table.columns)}.")
        users = table[column].rank("dense").cast(pl.Int64).to_numpy()
    width = int(sizes[0]) if table.height else 0
    history = lists.explode().to_numpy().reshape(table.height, width)
    return Windows(history, numbers["len_seq"].to_numpy(), numbers["next"].to_numpy(), users)


def _item_count(parts: Any) -> int:
    """Return the padding id, which the authors set to the number of items; else the greatest id + 1."""
    padding = [part.history[np.arange(part.history.shape[1]) >= part.lengths[:, None]] for part in parts]
    pads = np.unique(np.concatenate(padding))
    if len(pads) > 1:
        raise DataError(
            f"the padded places hold {len(pads)} values (e.g. {pads[0]}, {pads[1]}). Allowed: one, the "
            "number of items. Check len_seq, or state --n-items."
        )
    if len(pads):
        return int(pads[0])
    return int(max(max(part.history.max(initial=-1), part.targets.max(initial=-1)) for part in parts)) + 1


def _checked(part: Windows, item_count: int, origin: str) -> Windows:
    """Check lengths and ids of a file."""
    width = part.history.shape[1]
    inside = np.arange(width) < part.lengths[:, None]  # (W, L)
    bad_length = (part.lengths < 1) | (part.lengths > width)
    bad_item = (inside & ((part.history < 0) | (part.history >= item_count))).any(axis=1)
    bad_target = (part.targets < 0) | (part.targets >= item_count)
    for bad, what in ((bad_length, "len_seq"), (bad_item, "an item of seq"), (bad_target, "next")):
        if bad.any():
            line = int(np.flatnonzero(bad)[0]) + 2
            allowed = f"1..{width}" if what == "len_seq" else f"0..{item_count - 1}"
            raise DataError(
                f"{origin}, line {line}: {what} is out of range. Allowed: {allowed}. Mend or remove the row."
            )
    return part


@dataclass(frozen=True, eq=False)
class _Stitched:
    """Sequences of one split: ``(E,)`` events, ``(U,)`` sizes, ``(W,)`` target event and sequence of each "
    "row."""

    events: Ints
    sizes: Ints
    row_events: Ints
    row_sequences: Ints


def _stitch(part: Windows) -> tuple[_Stitched, Ints]:
    """Join windows that follow one another; return them with the events that are prefix targets."""
    order = np.arange(len(part.targets))
    if part.users is not None:
        order = np.argsort(part.users, kind="stable")
    history, lengths, targets = part.history[order], part.lengths[order], part.targets[order]
    steps = np.zeros(len(order), dtype=np.int64)  # events since the window before; 0: a new sequence
    if part.users is not None and len(order):
        users = part.users[order]
        steps[1:] = np.where(users[1:] == users[:-1], _steps(history, lengths, targets), 0)
    heads = np.flatnonzero(steps == 0)
    chain = np.cumsum(steps == 0) - 1
    size_so_far = np.cumsum(np.where(steps == 0, lengths + 1, steps))  # over all sequences laid end to end
    row_events = size_so_far - 1
    sizes = np.diff(size_so_far[[*(heads[1:] - 1), -1]], prepend=0) if len(order) else np.zeros(0, np.int64)
    events = np.empty(int(sizes.sum()), dtype=np.int64)
    inside = np.arange(history.shape[1]) < lengths[:, None]  # (W, L)
    places = row_events[:, None] - lengths[:, None] + np.arange(history.shape[1])
    events[places[inside]] = history[inside]  # what overlaps is written again, with the same items
    events[row_events] = targets
    first_of_user = np.zeros(len(order), dtype=bool)
    if part.users is not None:
        first_of_user[np.unique(part.users[order], return_index=True)[1]] = True
    prefix = inside & first_of_user[:, None]
    prefix[:, :1] = False  # nothing comes before the first event
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return _Stitched(events, sizes, row_events[back], chain[back]), places[prefix]


def _steps(history: Ints, lengths: Ints, targets: Ints) -> Ints:
    """Return ``(W - 1,)``: by how many events window k + 1 lies after window k, 0 if they do not overlap.

    One event where the history of k + 1 ends window k with its target. More where windows between the two are
    missing: then at least `_LEAST_OVERLAP` items, or all that is known, have to agree. A history may begin
    later than it could: an item that was dropped from the data leaves such a window behind.
    """
    count, width = history.shape
    places = np.arange(width)
    aligned = np.full(
        (count, width + 1), -1, dtype=np.int64
    )  # history and target, the target in the last column
    aligned[:, -1] = targets
    inside = places < lengths[:, None]
    columns = width - lengths[:, None] + places
    aligned[np.nonzero(inside)[0], columns[inside]] = history[inside]
    known, later, size = aligned[:-1], aligned[1:, :-1], lengths[1:]
    steps = np.zeros(count - 1, dtype=np.int64)
    for step in range(width, 0, -1):  # the smallest step that fits is kept
        overlap = size - (step - 1)
        needed = 1 if step == 1 else np.minimum(_LEAST_OVERLAP, lengths[:-1] + 1)
        same = (later[:, : width - step + 1] == known[:, step:]) | (
            places[: width - step + 1] < width - size[:, None]
        )
        steps[same.all(axis=1) & (overlap >= needed)] = step
    return steps


def _joined(
    catalogue: Catalogue, parts: list[_Stitched], prefixes: Ints, provenance: dict[str, Any]
) -> SequenceDataset:
    """Lay the splits one after the other, the prefix rows last."""
    event_base = np.cumsum([0, *(len(part.events) for part in parts)])
    sequence_base = np.cumsum([0, *(len(part.sizes) for part in parts)])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.sizes for part in parts]))]).astype(
        np.int64
    )
    row_events = [part.row_events + base for part, base in zip(parts, event_base, strict=False)]
    row_sequences = [part.row_sequences + base for part, base in zip(parts, sequence_base, strict=False)]
    row_sequences.append(np.searchsorted(offsets, prefixes, side="right") - 1)
    sizes = [*(len(part.row_events) for part in parts), len(prefixes)]
    provenance["counts"]["rows"] = dict(zip(SPLIT_NAMES, sizes, strict=True))
    return SequenceDataset(
        catalogue=catalogue,
        events=np.concatenate([part.events for part in parts]),
        offsets=offsets,
        row_ids=np.arange(sum(sizes)),
        row_events=np.concatenate([*row_events, prefixes]),
        row_sequences=np.concatenate(row_sequences),
        row_splits=np.repeat(np.arange(len(SPLIT_NAMES), dtype=np.int8), sizes),
        provenance=provenance,
    )


def _titles(paths: list[Path | None], item_count: int, min_support: float) -> Catalogue:
    """Return items 0..I-1 in the order of their numbers, with the titles that the tables give.

    An id that the first table names, be it with too little support, gets no title from the second.
    """
    known: pl.DataFrame | None = None
    for table in (_title_table(path) for path in paths if path is not None):
        if known is None:
            known = table
        else:
            known = pl.concat([known, table.join(known, on="item_id", how="anti")], how="diagonal")
    if known is not None and "support" in known.columns:
        known = known.filter(pl.col("support").cast(pl.Float64).fill_null(1.0) >= min_support)
    if known is not None:
        known = known.drop("support", "window_occurrences", "id_is_official", strict=False)
    return Catalogue.from_items(known, pl.Series("item_id", np.arange(item_count)))


def _title_table(path: Path) -> pl.DataFrame:
    table = read_table(path, quoted=".tsv" not in path.name)
    column = next((name for name in table.columns if name == "item_id" or name.endswith("_id")), None)
    if column is None or "title" not in table.columns:
        raise DataError(f"{path.name} has the columns {', '.join(table.columns)}. Needed: item_id and title.")
    return table.rename({column: "item_id"})
