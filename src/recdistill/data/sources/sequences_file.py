"""Sequence files without timestamps: one user a line, his items in time order, separated by blanks."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recdistill.data.files import find_file, need_file, need_folder, read_table, sources_of
from recdistill.data.interactions import Interactions
from recdistill.errors import DataError

_ORDERED = "_in_time_order"


def read_sequences(
    source: Path | str, *, items: Path | str | None = None
) -> tuple[Interactions, pl.DataFrame]:
    """Read ``sequences.tsv`` and ``items.tsv`` (also ``.gz``, ``.zst``).

    Parameters
    ----------
    source
        The file, or the folder that holds it. Columns: ``user_id`` and one whose name ends in
        ``_in_time_order``; a file of two columns may name the second one as it likes.
    items
        The item table (``item_id``, ``title``, any others); by default ``items.tsv`` or ``items.csv`` beside
        the sequences, if there is one.

    Returns
    -------
    tuple
        `Interactions` without timestamps, and the item table, empty where there is none.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        path = need_file(need_folder(path), "sequences.tsv", where_from="your own export")
    found = Path(items) if items is not None else find_file(path.parent, "items.tsv", "items.csv")
    table = (
        pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
        if found is None
        else read_items(found)
    )
    log = Interactions.from_frame(
        explode_sequences(read_table(path, quoted=False), path.name),
        provenance={"format": "sequences", "files": sources_of([path, found])},
        origin=path.name,
    )
    return log, table


def explode_sequences(table: pl.DataFrame, origin: str) -> pl.DataFrame:
    """Return one row (``user_id``, ``item_id``) per event of a table of sequences.

    Raises
    ------
    DataError
        There is no column of sequences, a user stands on two lines, or his line is empty.
    """
    ordered = [name for name in table.columns if name.endswith(_ORDERED)]
    others = [name for name in table.columns if name != "user_id"]
    if "user_id" not in table.columns or not (len(ordered) == 1 or len(others) == 1):
        raise DataError(
            f"{origin} has the columns {', '.join(table.columns)}. Needed: user_id and one that ends in "
            f"{_ORDERED}. Rename them in the first line."
        )
    column = pl.col(ordered[0] if ordered else others[0])
    rows = table.select("user_id", item_id=column.fill_null("").str.strip_chars().str.split(" "))
    repeated = (~rows["user_id"].is_first_distinct()).arg_true()
    if len(repeated):
        line = repeated[0] + 2
        raise DataError(
            f"{origin}, line {line}: user {rows['user_id'][line - 2]!r} has a line already. Join them."
        )
    events = rows.explode("item_id").filter(pl.col("item_id") != "")
    if events.height == 0:
        raise DataError(
            f"{origin} holds no event. Needed: item ids, separated by blanks, in the second column."
        )
    return events


def read_items(path: Path, *, id_column: str = "item_id", title_column: str = "title") -> pl.DataFrame:
    """Read a table of items: ``item_id``, ``title`` and any other columns, all as text.

    Raises
    ------
    DataError
        A column is absent.
    """
    table = read_table(path, quoted=".tsv" not in path.name)
    missing = [name for name in (id_column, title_column) if name not in table.columns]
    if missing:
        raise DataError(
            f"{path.name} has no column {missing[0]!r} (it has {', '.join(table.columns)}). Needed: an id "
            "and a title. Name them with --item-column and --title-column."
        )
    return table.rename({id_column: "item_id", title_column: "title"})
