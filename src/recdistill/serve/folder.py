"""Read an exported folder: every byte once, checked against the manifest, into memory.

Files are read whole and not mapped: a mapped file that someone truncates later kills the process that reads it.
The checksum is taken of the bytes that are used, so a folder that is replaced while it is read is refused, not mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.columns import columns_from
from recdistill.errors import MissingExtraError, RunError
from recdistill.runs import inside, read_json, read_manifest

KIND: Final = "recommender-export"
WEIGHTS, ENCODER, COLUMNS, PARQUET = "model.safetensors", "encoder.onnx", "items.safetensors", "items.parquet"
_FILES: Final = ("manifest.json", "config.json", WEIGHTS, ENCODER, COLUMNS, PARQUET)
_USED: Final = ("item_table", "item_scale", "item_bias")
_TABLE_TYPES: Final = ("float32", "float16", "int8")
Array = npt.NDArray[Any]
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Exported:
    """What a server needs of an exported recommender.

    Attributes
    ----------
    config
        ``config.json``.
    fingerprint
        Of the dataset the student was trained on.
    version
        Checksum of the manifest, which holds the checksums of the files: another export has another one.
    tensors
        ``item_table (I, H)``, where there are such ``item_scale (I,)`` and ``item_bias (I,)``.
    encoder
        The bytes of ``encoder.onnx``.
    columns
        The items: ``item_id`` and ``title`` as `TextColumn`, further texts, and ``(I,)`` numbers.
    """

    config: Mapping[str, Any]
    fingerprint: str
    version: str
    tensors: Mapping[str, Array]
    encoder: bytes
    columns: Mapping[str, Any]


def stamp(folder: Path) -> Stamp:
    """Return what changes when a file of the folder is written: name, time, size and number of each."""
    found = []
    for name in _FILES:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def read_export(folder: Path) -> Exported:
    """Read an exported folder.

    Raises
    ------
    RunError
        A file is missing, damaged, not the one of the manifest, or of another shape than the configuration says.
    """
    manifest = read_manifest(folder, KIND)
    config = read_json(folder / "config.json")
    sums = manifest.get("files")
    if not isinstance(sums, dict) or not isinstance(config, dict):
        raise _damaged(folder, "its manifest has no checksums, or its config.json is no object")
    _check_sum(folder, "config.json", (folder / "config.json").read_bytes(), sums)
    arrays, _ = _tensors(folder, WEIGHTS, sums)
    tensors: dict[str, Array] = {name: arrays[name] for name in _USED if name in arrays}
    _check_tensors(folder, tensors)
    columns = _columns(folder, sums)
    missing = {"item_id", "title"} - set(columns)
    if missing or len(columns["item_id"]) != len(tensors["item_table"]):
        raise _damaged(folder, f"its items are not the {len(tensors['item_table'])} rows of item_table")
    return Exported(
        config,
        str(manifest.get("dataset_fingerprint", "")),
        hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest(),
        tensors,
        _read(folder, ENCODER, sums),
        columns,
    )


def _damaged(folder: Path, what: str) -> RunError:
    return RunError(
        f"{folder} cannot be served: {what}. Export it anew: recdistill export RUN --out {folder} --overwrite"
    )


def _read(folder: Path, name: str, sums: Mapping[str, Any]) -> bytes:
    try:
        data = inside(folder, name).read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from None
    _check_sum(folder, name, data, sums)
    return data


def _check_sum(folder: Path, name: str, data: bytes, sums: Mapping[str, Any]) -> None:
    found, entry = hashlib.sha256(data).hexdigest(), sums.get(name)
    if not isinstance(entry, dict) or found != entry.get("sha256"):
        raise _damaged(folder, f"{name} is not the file of the manifest (SHA-256 {found[:12]})")


def _tensors(folder: Path, name: str, sums: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a file and its header's remarks; safetensors checks the header before it makes any."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = _read(folder, name, sums)
    try:
        size = int.from_bytes(data[:8], "little")
        tensors = load(data)
        remarks = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(folder, f"{name} is no valid safetensors file ({error})") from None
    return tensors, remarks


def _check_tensors(folder: Path, tensors: Mapping[str, Array]) -> None:
    table = tensors.get("item_table")
    if table is None or table.ndim != 2 or not table.size or table.dtype.name not in _TABLE_TYPES:
        raise _damaged(folder, f"{WEIGHTS} has no item_table (I, H) of {', '.join(_TABLE_TYPES)}")
    if (table.dtype == np.int8) != ("item_scale" in tensors):
        raise _damaged(folder, "an int8 item_table needs item_scale, and no other may have it")
    for name, tensor in tensors.items():
        if name != "item_table" and (tensor.shape != table.shape[:1] or tensor.dtype.kind != "f"):
            raise _damaged(folder, f"{name} has shape {tensor.shape}, not ({len(table)},)")
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise _damaged(folder, f"{name} holds numbers that are not finite")


def _columns(folder: Path, sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items, from ``items.safetensors``, or where there is none from ``items.parquet`` with pyarrow."""
    if COLUMNS in sums:
        arrays, remarks = _tensors(folder, COLUMNS, sums)
        return columns_from(arrays, json.loads(remarks.get("columns", "[]")), str(folder / COLUMNS))
    data = _read(folder, PARQUET, sums)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            f"{folder} has no {COLUMNS}, and pyarrow, which reads {PARQUET},", "serve"
        ) from None
    from recdistill.columns import TextColumn

    try:
        frame = parquet.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(folder, f"{PARQUET} cannot be read ({error})") from None
    columns: dict[str, Any] = {}
    for name in frame.column_names:
        column = frame.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            if not column.null_count:
                columns[name] = column.to_numpy()
        elif (
            pa.types.is_string(column.type)
            or pa.types.is_large_string(column.type)
            or str(column.type) == "string_view"
        ):
            columns[name] = TextColumn.of([text or "" for text in column.to_pylist()])
    return columns
