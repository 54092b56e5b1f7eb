"""The log: who met which item, when; checked before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recdistill.errors import DataError

COLUMNS = ("user_id", "item_id", "timestamp", "rating")


@dataclass(frozen=True, eq=False)
class Interactions:
    """A checked log; its row order breaks ties in time, or is the time where there are no timestamps.

    Attributes
    ----------
    frame
        ``user_id`` and ``item_id`` (whole numbers or text, never missing), ``timestamp`` (int64 seconds since
        1970, optional), ``rating`` (float32, optional).
    provenance
        JSON-able: format, files with their SHA-256.
    """

    frame: pl.DataFrame
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        columns: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        origin: str = "the frame",
        first_line: int = 0,
    ) -> Interactions:
        """Check a polars, pandas or Arrow frame and keep the columns that count.

        Parameters
        ----------
        frame
            Anything polars understands.
        columns
            Ours → theirs, e.g. ``{"item_id": "parent_asin"}``. Columns that are not named keep our names.
            ``timestamp`` and ``rating`` may be absent.
        provenance
            Kept in the dataset's manifest.
        origin, first_line
            How messages name a row: the file, and the line number of the first row.

        Raises
        ------
        DataError
            A column is absent, or a row cannot be used; the message names the first such row.
        """
        table = _renamed(_to_polars(frame), columns or {}, origin)
        problems = find_problems(table, origin=origin, first_line=first_line)
        if problems:
            raise DataError(problems[0])
        if "timestamp" in table.columns:
            table = table.with_columns(timestamp=_seconds(table["timestamp"]))
        if "rating" in table.columns:
            table = table.with_columns(pl.col("rating").cast(pl.Float32))
        return cls(table, dict(provenance or {}))

    @classmethod
    def read(
        cls, path: Path | str, *, columns: Mapping[str, str] | None = None, separator: str | None = None
    ) -> Interactions:
        """Read a csv, tsv or parquet file (csv and tsv also as ``.gz`` or ``.zst``) with a header line.

        Ids are kept as text, so ``0054890`` stays what it is.

        Parameters
        ----------
        path
            The file.
        columns
            Ours → theirs, as in `from_frame`.
        separator
            Of the fields; by default a tab if the name contains ``.tsv``, else a comma.
        """
        from recdistill.data.files import read_table, sources_of

        path = Path(path)
        table = read_table(path, separator=separator)
        return cls.from_frame(
            table,
            columns=columns,
            provenance={"format": "table", "files": sources_of([path])},
            origin=path.name,
            first_line=0 if ".parquet" in path.name else 2,
        )

    def __len__(self) -> int:
        return self.frame.height

    @property
    def has_time(self) -> bool:
        """Whether there are timestamps; without them the row order is the time order."""
        return "timestamp" in self.frame.columns

    def counts(self) -> dict[str, int]:
        """Return the numbers of ``users``, ``items`` and ``interactions``."""
        return {
            "users": self.frame["user_id"].n_unique(),
            "items": self.frame["item_id"].n_unique(),
            "interactions": self.frame.height,
        }

    def with_frame(self, frame: pl.DataFrame) -> Interactions:
        """Return the same source with other rows."""
        return Interactions(frame, self.provenance)


def find_problems(table: pl.DataFrame, *, origin: str = "the frame", first_line: int = 0) -> list[str]:
    """Return what makes rows unusable, the first row of each kind, in row order.

    Looks for missing ids, times and ratings, and for times and ratings that are not numbers. Exact duplicates
    are no such problem: see `find_duplicate`.
    """
    found: list[tuple[int, str]] = []
    for name in COLUMNS:
        if name not in table.columns:
            continue
        column = table[name]
        missing = column.is_null()
        if column.dtype == pl.String:
            missing |= column.str.strip_chars() == ""
        if missing.any():
            row = missing.arg_true()[0]
            found.append((row, f"{name} is missing. Every row needs one: remove or mend the row."))
        if name in ("timestamp", "rating"):
            numbers = _seconds(column) if name == "timestamp" else column.cast(pl.Float64, strict=False)
            wrong = ~missing & (numbers.is_null() | (numbers.is_nan() if numbers.dtype.is_float() else False))
            if wrong.any():
                row = wrong.arg_true()[0]
                allowed = "seconds since 1970, or an ISO date" if name == "timestamp" else "a number"
                found.append((row, f"{name} is {column[row]!r}. Allowed: {allowed}. Mend or remove the row."))
    return [
        f"{origin}, {_place(row, first_line)}: {text}"
        for row, text in sorted(found, key=lambda pair: pair[0])
    ]


def find_duplicate(table: pl.DataFrame, *, origin: str = "the frame", first_line: int = 0) -> str | None:
    """Return a sentence on the first row that repeats an earlier one (same user, item and time), or None."""
    key = [name for name in ("user_id", "item_id", "timestamp") if name in table.columns]
    if "timestamp" not in key:  # without time, the same item twice is an event of its own
        return None
    repeated = ~table.select(pl.struct(key).is_first_distinct()).to_series()
    if not repeated.any():
        return None
    row = repeated.arg_true()[0]
    user, item, time = table.select(key).row(row)
    return (
        f"{origin}, {_place(row, first_line)}: user {user!r} with item {item!r} at {time} is there already "
        f"({int(repeated.sum())} such rows). They are kept; remove them if they are no events of their own."
    )


def _place(row: int, first_line: int) -> str:
    return f"line {row + first_line}" if first_line else f"row {row}"


def _to_polars(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    try:
        return pl.DataFrame(frame)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{type(frame).__name__} is no table ({error}). Allowed: a polars, pandas or pyarrow table, a "
            "dict of columns. Convert it first, e.g. with polars.DataFrame(...)."
        ) from None


def _renamed(table: pl.DataFrame, columns: Mapping[str, str], origin: str) -> pl.DataFrame:
    """Return the columns that count under our names, ids as whole numbers or text."""
    chosen: list[pl.Expr] = []
    for ours in COLUMNS:
        theirs = columns.get(ours, ours)
        if theirs in table.columns:
            chosen.append(pl.col(theirs).alias(ours))
        elif ours in ("user_id", "item_id") or ours in columns:
            raise DataError(
                f"{origin} has no column {theirs!r} (it has {', '.join(table.columns)}). Needed: user_id "
                "and item_id, with timestamp and rating as options. Name it with "
                f"--{ours.split('_')[0]}-column NAME."
            )
    table = table.select(chosen)
    ids = [pl.col(name) for name in ("user_id", "item_id") if not table.schema[name].is_integer()]
    return table.with_columns(column.cast(pl.String) for column in ids)


def _seconds(column: pl.Series) -> pl.Series:
    """Return int64 seconds; null where a value is neither a finite number nor an ISO date."""
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us")).dt.epoch("s")
    numbers = column.cast(pl.Float64, strict=False)
    if column.dtype == pl.String and numbers.null_count() == len(numbers):
        try:
            return column.str.to_datetime(strict=False, time_unit="us").dt.epoch("s")
        except pl.exceptions.PolarsError:  # no date format fits the first value
            return numbers.cast(pl.Int64)
    finite = numbers.is_finite().fill_null(False) & (numbers.abs() < 2**62)
    return numbers.floor().zip_with(finite, pl.Series([None], dtype=pl.Float64)).cast(pl.Int64)
