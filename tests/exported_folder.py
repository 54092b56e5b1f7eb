"""An exported folder as `recdistill export` writes it, around a student that numpy can follow by hand.

The student weighs the items of a history 1, 2, 3 ... from old to new and mixes the mean: h = tanh((sum of w e) M).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from recdistill.columns import write_columns
from recdistill.runs import atomic_folder, file_checksum, write_json, write_manifest

ITEMS, HIDDEN, LENGTH = 120, 8, 6
GENRES = ["Comedy", "Drama", "Comedy|Drama", "Horror"]
#: A category whose values are longer than a phone is wide.
SHELVES = ["one long word " * 20, "of the other shelf " * 20]


def titles(count: int) -> list[str]:
    """Titles with repeats, accents, and none for one item."""
    names = [f"Film {number} ({1950 + number % 70})" for number in range(count)]
    names[:8] = [
        "Amélie",
        "Toy Story (1995)",
        "Toy Story 2 (1999)",
        "The Story of Us",
        "",
        "Heat",
        "Heat",
        "HEAT <b>&",
    ]
    return names


def weights(seed: int, count: int = ITEMS, hidden: int = HIDDEN) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "item_table": random.standard_normal((count, hidden)).astype(np.float32),
        "item_bias": (random.standard_normal(count) / 4).astype(np.float32),
        "student.mix": random.standard_normal((hidden, hidden)).astype(np.float32),
    }


def unpacked(arrays: dict[str, np.ndarray]) -> np.ndarray:
    table = arrays["item_table"].astype(np.float32)
    return table * arrays["item_scale"][:, None] if "item_scale" in arrays else table


def encoder(arrays: dict[str, np.ndarray]) -> bytes:
    """The student as a graph."""
    table = arrays["item_table"]
    constants = {
        "item_table": table,
        "mix": arrays["student.mix"],
        "zero": np.int64(0),
        "one": np.array([1], dtype=np.int64),
        "axis": np.int64(1),
        "two": np.array([2], dtype=np.int64),
        **({"item_scale": arrays["item_scale"][:, None]} if "item_scale" in arrays else {}),
    }
    steps: list[tuple[str, list[str], str, dict[str, int]]] = [
        ("GreaterOrEqual", ["history", "zero"], "real", {}),
        ("Cast", ["real"], "mask", {"to": TensorProto.FLOAT}),
        ("CumSum", ["mask", "axis"], "place", {}),
        ("Mul", ["place", "mask"], "weight", {}),
        ("ReduceSum", ["weight", "one"], "total", {"keepdims": 1}),
        ("Div", ["weight", "total"], "share", {}),
        ("Unsqueeze", ["share", "two"], "wide", {}),
        ("Max", ["history", "zero"], "items", {}),
        ("Gather", ["item_table", "items"], "packed", {}),
        ("Cast", ["packed"], "rows", {"to": TensorProto.FLOAT}),
    ]
    vectors = "rows"
    if "item_scale" in arrays:
        steps += [("Gather", ["item_scale", "items"], "scale", {}), ("Mul", ["rows", "scale"], "vectors", {})]
        vectors = "vectors"
    steps += [
        ("Mul", [vectors, "wide"], "weighed", {}),
        ("ReduceSum", ["weighed", "one"], "mean", {"keepdims": 0}),
        ("MatMul", ["mean", "mix"], "mixed", {}),
        ("Tanh", ["mixed"], "hidden", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in steps],
        "encoder",
        [helper.make_tensor_value_info("history", TensorProto.INT64, ["batch", "width"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", table.shape[1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def hidden_of(arrays: dict[str, np.ndarray], history: list[int]) -> np.ndarray:
    """The student by hand."""
    kept = history[-LENGTH:]
    share = np.arange(1, len(kept) + 1) / np.arange(1, len(kept) + 1).sum()
    return np.tanh((unpacked(arrays)[kept] * share[:, None]).sum(0) @ arrays["student.mix"])


def best_of(
    arrays: dict[str, np.ndarray],
    history: list[int],
    k: int,
    *,
    out: set[int] = frozenset(),
    among: list[int] | None = None,
) -> list[int]:
    """The answer by hand: sort all scores."""
    scores = unpacked(arrays).astype(np.float64) @ hidden_of(arrays, history).astype(np.float64)
    scores = scores + arrays.get("item_bias", 0)
    allowed = [item for item in (range(len(scores)) if among is None else among) if item not in out]
    return sorted(allowed, key=lambda item: (-scores[item], item))[:k]


def pack(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """The item table as float32, float16 or int8."""
    table = arrays["item_table"]
    if kind == "int8":
        scale = np.abs(table).max(1) / 127
        return {**arrays, "item_table": np.rint(table / scale[:, None]).astype(np.int8), "item_scale": scale}
    return {**arrays, "item_table": table.astype(kind)}


def columns(count: int) -> dict[str, object]:
    return {
        "item_id": [f"id-{number}" for number in range(count)],
        "title": titles(count),
        "genres": [GENRES[number % len(GENRES)] for number in range(count)],
        "shelf": [SHELVES[number % 2] for number in range(count)],
        "blurb": [f"text {number}" for number in range(count)],
        "popularity": np.arange(count, 0, -1),
    }


def write_export(
    folder: Path,
    *,
    seed: int = 0,
    count: int = ITEMS,
    kind: str = "float32",
    fingerprint: str = "f" * 64,
    arrays: dict[str, np.ndarray] | None = None,
    parquet: bool = False,
) -> dict[str, np.ndarray]:
    """Write the folder whole, in place of an older one; return the packed weights."""
    arrays = pack(weights(seed, count) if arrays is None else arrays, kind)
    with atomic_folder(folder, overwrite=True) as out:
        save_file(arrays, out / "model.safetensors")
        (out / "encoder.onnx").write_bytes(encoder(arrays))
        config = {"student": "toy", "length": LENGTH, "item_count": count, "pad": -1, "table": kind}
        write_json(out / "config.json", {**config, "strategy": None if seed else "dllm2rec"})
        if parquet:
            import polars as pl

            pl.DataFrame(columns(count)).write_parquet(out / "items.parquet")
        else:
            write_columns(out / "items.safetensors", columns(count))
        sign(out, fingerprint)
    return arrays


def sign(folder: Path, fingerprint: str = "f" * 64) -> None:
    """Write a manifest with the checksums of what is there now."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != "manifest.json"]
    sums = {path.name: {"sha256": file_checksum(path), "bytes": path.stat().st_size} for path in paths}
    write_manifest(folder, "recommender-export", {"dataset_fingerprint": fingerprint, "files": sums})


def header(path: Path) -> tuple[dict[str, object], bytes]:
    """The header of a safetensors file and what follows it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_header(path: Path, content: dict[str, object], data: bytes) -> None:
    text = json.dumps(content).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
