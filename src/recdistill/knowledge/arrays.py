"""Safetensors files that are written as a stream and read lazily, so that a table need not fit in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from recdistill.errors import KnowledgeError
from recdistill.knowledge.lists import row_chunks
from recdistill.runs import atomic_file

Array = npt.NDArray[Any]

_CODES: Final[Mapping[np.dtype[Any], str]] = {
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
}


@dataclass(frozen=True)
class Stream:
    """An array that is made piece by piece while it is written.

    Attributes
    ----------
    dtype, shape
        Of the whole.
    pieces
        Yields consecutive rows; called once.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[Array]]

    @classmethod
    def of(cls, array: Array) -> Stream:
        """Return a stream over an array that exists, maybe memory-mapped."""
        width = int(np.prod(array.shape[1:], dtype=np.int64))
        return cls(array.dtype, array.shape, lambda: (array[rows] for rows in row_chunks(len(array), width)))


def write_arrays(path: Path, arrays: Mapping[str, Array | Stream]) -> None:
    """Write a safetensors file, whole or not at all. The same arrays give the same bytes.

    Parameters
    ----------
    path
        The file.
    arrays
        int64, int32, float32 or float16, by name.
    """
    streams = {name: a if isinstance(a, Stream) else Stream.of(a) for name, a in arrays.items()}
    names = sorted(
        streams, key=lambda name: (-streams[name].dtype.itemsize, name)
    )  # keeps every array aligned
    header: dict[str, Any] = {}
    end = 0
    for name in names:
        stream = streams[name]
        begin, end = end, end + stream.dtype.itemsize * int(np.prod(stream.shape, dtype=np.int64))
        header[name] = {
            "dtype": _CODES[stream.dtype],
            "shape": list(stream.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            for piece in streams[name].pieces():
                file.write(np.ascontiguousarray(piece).data)


def open_arrays(path: Path) -> dict[str, Array]:
    """Map a safetensors file into memory; nothing but its header is read until an array is used.

    Raises
    ------
    KnowledgeError
        The file does not exist, is cut short or is no safetensors file.
    """
    if not path.is_file():
        raise KnowledgeError(
            f"{path} does not exist. A knowledge folder holds it beside its manifest.json: make it anew with "
            "recdistill teach."
        )
    arrays: dict[str, Array] = {}
    try:
        with safe_open(path, framework="pt") as file:  # torch maps the file, numpy's reader would copy it
            for name in file.keys():  # noqa: SIM118  (no mapping: it has no __iter__)
                arrays[name] = file.get_tensor(name).numpy()
                arrays[name].flags.writeable = False
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise KnowledgeError(
            f"{path} is damaged ({error}). It must be a whole safetensors file: copy it again, or make it "
            "anew with recdistill teach."
        ) from None
    return arrays
