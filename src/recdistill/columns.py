"""A table of texts and numbers in one safetensors file, read with numpy alone.

Parquet needs a reader of more than 100 MB, which a serving image has no room for. Here a text column is the UTF-8
bytes of all rows one after the other, ``text:NAME (n,) uint8``, and where each row ends, ``ends:NAME (I,) int64``;
a number column is ``number:NAME (I,)``. A million titles cost their bytes and eight more each, not a Python object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.errors import RunError

Ints = npt.NDArray[np.int64]


class TextColumn(Sequence[str]):
    """The texts of I rows.

    Parameters
    ----------
    data
        UTF-8 bytes of all rows.
    ends
        ``(I,)`` int64, where each row ends in `data`; not decreasing.
    """

    def __init__(self, data: bytes, ends: Ints) -> None:
        self.data = data
        self.ends = ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextColumn:
        """Pack texts; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
        parts = [text.encode("utf-8", "replace") for text in texts]
        return cls(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def raw(self, row: int) -> bytes:
        """Return the bytes of a row of 0..I-1."""
        return self.data[int(self.ends[row - 1]) if row else 0 : int(self.ends[row])]

    def __getitem__(self, row: Any) -> Any:
        return self.raw(range(len(self))[row]).decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.tolist():
            yield self.data[start:end].decode("utf-8", "replace")
            start = end


def write_columns(path: Path, columns: Mapping[str, Sequence[str] | npt.NDArray[Any]]) -> None:
    """Write columns: arrays of numbers as they are, everything else as texts.

    Parameters
    ----------
    path
        The file.
    columns
        Name to I texts or ``(I,)`` numbers. The order of the names is kept.

    Raises
    ------
    RunError
        The columns differ in length.
    """
    from safetensors.numpy import save_file

    if len({len(column) for column in columns.values()}) > 1:
        lengths = {name: len(column) for name, column in columns.items()}
        raise RunError(f"the columns have {lengths} rows. Allowed: the same number in all.")
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
            arrays[f"number:{name}"] = np.ascontiguousarray(column)
        else:
            packed = (
                column if isinstance(column, TextColumn) else TextColumn.of([str(text) for text in column])
            )
            arrays[f"text:{name}"] = np.frombuffer(packed.data, dtype=np.uint8)
            arrays[f"ends:{name}"] = packed.ends
    save_file(arrays, path, metadata={"columns": json.dumps(list(columns))})


def columns_of(frame: Any) -> dict[str, Any]:
    """Return the columns of a polars frame as `write_columns` takes them; number columns with gaps are left out."""
    columns: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        if not column.dtype.is_numeric():
            columns[name] = column.cast(str).fill_null("").to_list()
        elif not column.null_count():
            columns[name] = column.to_numpy()
    return columns


def columns_from(arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str], where: str) -> dict[str, Any]:
    """Return name to `TextColumn` or ``(I,)`` array, from the arrays that `write_columns` wrote.

    Raises
    ------
    RunError
        A column is missing, its ends do not fit its bytes, its bytes are not UTF-8, or the lengths differ.
    """
    columns: dict[str, Any] = {}
    for name in names:
        if f"number:{name}" in arrays:
            columns[name] = arrays[f"number:{name}"]
            continue
        data, ends = arrays.get(f"text:{name}"), arrays.get(f"ends:{name}")
        if data is None or ends is None or data.dtype != np.uint8 or ends.dtype != np.int64 or ends.ndim != 1:
            raise RunError(
                f"{where} lacks the column {name!r}. Export the folder anew: recdistill export RUN --out REC"
            )
        steps = np.diff(ends, prepend=np.int64(0))
        text = data.tobytes()
        if (len(ends) and (steps.min() < 0 or ends[-1] != len(text))) or not _is_utf8(text):
            raise RunError(
                f"{where}: the column {name!r} is damaged. Export the folder anew: recdistill export RUN --out REC"
            )
        columns[name] = TextColumn(text, ends)
    if len({len(column) for column in columns.values()}) > 1:
        raise RunError(
            f"{where}: its columns differ in length. Export the folder anew: recdistill export RUN --out REC"
        )
    return columns


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
