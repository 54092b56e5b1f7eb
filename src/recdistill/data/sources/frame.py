"""Your own log and items: csv, tsv and parquet files, or data frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recdistill.data.files import find_file, need_folder
from recdistill.data.interactions import Interactions
from recdistill.data.sources.sequences_file import read_items
from recdistill.errors import DataError

_LOGS = ("interactions.csv", "interactions.tsv", "interactions.parquet", "ratings.csv", "ratings.parquet")
_ITEMS = ("items.csv", "items.tsv", "items.parquet")


def read_files(
    source: Path | str,
    *,
    items: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    title_column: str = "title",
    separator: str | None = None,
) -> tuple[Interactions, pl.DataFrame]:
    """Read a log and, if there, its items from csv, tsv or parquet.

    Parameters
    ----------
    source
        The log (``user_id, item_id[, timestamp][, rating]``), or a folder with ``interactions.csv`` (or
        ``.tsv``, ``.parquet``). Without timestamps the order of the rows is the order in time.
    items
        ``item_id, title`` and any other columns; by default ``items.csv`` (or ``.tsv``, ``.parquet``)
        beside it.
    columns
        Ours → theirs, for the log; ``item_id`` also for the items if they have that column.
    title_column
        Of the items.
    separator
        Of the log's fields.

    Raises
    ------
    DataError
        A file or a column is missing, or a row cannot be used.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        found = find_file(need_folder(path), *_LOGS)
        if found is None:
            raise DataError(f"{path} holds none of {', '.join(_LOGS)}. Pass the file itself: --source FILE.")
        path = found
    log = Interactions.read(path, columns=columns, separator=separator)
    item_file = Path(items) if items is not None else find_file(path.parent, *_ITEMS)
    if item_file is None:
        return log, pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    theirs = (columns or {}).get("item_id", "item_id")
    try:
        return log, read_items(item_file, id_column=theirs, title_column=title_column)
    except DataError:
        if theirs == "item_id":
            raise
        return log, read_items(item_file, title_column=title_column)


def read_frames(
    interactions: Any, items: Any = None, *, columns: Mapping[str, str] | None = None
) -> tuple[Interactions, pl.DataFrame]:
    """Take a log and its items as polars, pandas or Arrow frames.

    Parameters
    ----------
    interactions
        ``user_id, item_id[, timestamp][, rating]``.
    items
        ``item_id, title`` and any other columns, or None.
    columns
        Ours → theirs, for the log.
    """
    log = Interactions.from_frame(interactions, columns=columns, provenance={"format": "frame"})
    if items is None:
        return log, pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    table = items if isinstance(items, pl.DataFrame) else pl.DataFrame(items)
    if missing := [name for name in ("item_id", "title") if name not in table.columns]:
        raise DataError(
            f"the items have no column {missing[0]!r} (they have {', '.join(table.columns)}). Rename one."
        )
    return log, table
