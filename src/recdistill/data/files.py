"""Finding, opening and reading source files: plain, ``.gz`` or ``.zst``."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from recdistill.errors import DataError
from recdistill.runs import file_checksum

_SUFFIXES = ("", ".zst", ".gz")


def find_file(folder: Path, *names: str) -> Path | None:
    """Return the first of `names` in `folder` or in a folder directly below it, also as ``.zst`` or "
    "``.gz``."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for name in names:
            for suffix in _SUFFIXES:
                if (path := place / f"{name}{suffix}").is_file():
                    return path
    return None


def need_folder(folder: Path | str) -> Path:
    """Return the folder after checking that it exists.

    Raises
    ------
    DataError
        It does not.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{path} is no folder. Pass the folder that holds the files: --source DIR.")
    return path


def need_file(folder: Path, *names: str, where_from: str) -> Path:
    """Return the first of `names` that is there.

    Raises
    ------
    DataError
        None is; the message says which file to put where, and where it comes from.
    """
    path = find_file(folder, *names)
    if path is None:
        raise DataError(
            f"{folder} holds no {' or '.join(names)} (also looked for .gz and .zst, and one folder down). "
            f"Get it from {where_from} and put it there."
        )
    return path


def open_binary(path: Path) -> IO[bytes]:
    """Open a plain, gzip or Zstandard file for reading bytes.

    Raises
    ------
    DataError
        A ``.zst`` file, and the package zstandard is not installed.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix != ".zst":
        return path.open("rb")
    try:
        import zstandard
    except ImportError:
        raise DataError(
            f"{path.name} is compressed with Zstandard and the package that reads it is not installed. "
            f"Unpack it (zstd -d {path}), or: pip install zstandard"
        ) from None
    return cast(IO[bytes], io.BufferedReader(zstandard.open(path, "rb")))


def read_text(path: Path) -> str:
    """Read a text file as UTF-8 or, where it is not valid UTF-8, as Latin-1."""
    with open_binary(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_table(
    path: Path,
    *,
    separator: str | None = None,
    header: bool = True,
    schema: Mapping[str, Any] | None = None,
    quoted: bool = True,
) -> pl.DataFrame:
    """Read a csv, tsv or parquet file.

    Parameters
    ----------
    path
        The file; csv and tsv also as ``.gz`` or ``.zst``.
    separator
        Of the fields; by default a tab if the name contains ``.tsv``, else a comma.
    header
        Whether the first line names the columns.
    schema
        Types of the columns in their order, where the file has no header; else types by name. All columns
        that are not named are text.
    quoted
        Whether ``"`` encloses fields.

    Raises
    ------
    DataError
        The file does not exist or cannot be read as a table.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Check the path, or pass another one.")
    try:
        if ".parquet" in path.suffixes or path.suffix in (".pq", ".parquet"):
            return pl.read_parquet(path)
        return pl.read_csv(
            path,
            separator=separator or ("\t" if ".tsv" in path.name else ","),
            has_header=header,
            quote_char='"' if quoted else None,
            infer_schema=False,
            schema=None if header else schema,
            schema_overrides=schema if header else None,
        )
    except pl.exceptions.NoDataError:
        raise DataError(f"{path} is empty. Needed: a table with at least one row.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as a table ({reason}). Allowed: csv, tsv, parquet; csv and tsv also .gz "
            "or .zst. Look at its first lines, then pass the right file or --separator."
        ) from None


def split_lines(text: str, separator: str, fields: Sequence[str], origin: str) -> pl.DataFrame:
    """Split each line at a `separator` of any length into text columns.

    A title may hold the separator: the first and the last field are cut off, what lies between is the middle
    one where there are three.

    Raises
    ------
    DataError
        A line has fewer fields.
    """
    rows: list[list[str]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not line.strip():
            continue
        parts = line.split(separator)
        if len(parts) < len(fields):
            raise DataError(
                f"{origin}, line {number}: {len(parts)} fields. Allowed: {len(fields)} "
                f"({', '.join(fields)}), separated by {separator!r}. Mend or remove the line."
            )
        if len(fields) == 3:
            parts = [parts[0], separator.join(parts[1:-1]), parts[-1]]
        rows.append(parts[: len(fields)])
    return pl.DataFrame(rows, schema=dict.fromkeys(fields, pl.String), orient="row")


def sources_of(paths: Iterable[Path | None]) -> dict[str, str]:
    """Return name → SHA-256 of the files that exist."""
    return {path.name: file_checksum(path) for path in paths if path is not None}
