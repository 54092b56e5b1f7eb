"""Reading an exported folder. It may come from anybody: nothing in it is believed before it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from recdistill.data import Catalogue
from recdistill.errors import DataError, RecdistillError, RunError
from recdistill.export.kinds import EXPORT_KIND, FORMAT, OWN_COLUMNS
from recdistill.export.recommender import PRIOR, REPEATS, Recommender
from recdistill.export.tables import unpack_table
from recdistill.export.text_path import TextPath
from recdistill.item_encoders import Ids
from recdistill.runs import file_checksum, read_json, read_manifest
from recdistill.students import STUDENTS, SequenceModel
from recdistill.types import LEARNED

Array = npt.NDArray[Any]
_NEEDED = ("config.json", "items.parquet", "model.safetensors")


def check_files(folder: Path) -> dict[str, Any]:
    """Return the manifest of an export after comparing size and checksum of every file that it names.

    Raises
    ------
    RunError
        It is no export, of a newer format, or a file is missing or not the one that was written.
    """
    manifest = read_manifest(folder, EXPORT_KIND)
    files = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or not set(_NEEDED) <= set(files):
        raise RunError(
            f"{folder} is an export of format {manifest.get('format')!r} with the files {sorted(files or {})}. "
            f"Allowed: format {FORMAT} with at least {', '.join(_NEEDED)}. Export the run anew: recdistill export."
        )
    for name, facts in files.items():
        if Path(name).name != name:  # the Hub's cache is made of links, so the path itself may lead elsewhere
            raise RunError(
                f"{folder} names the file {name!r}. Allowed: names without a folder. Export the run anew."
            )
        path = folder / name
        if not path.is_file():
            raise RunError(f"{folder} is incomplete: {name} is missing. Export or download it anew.")
        if not isinstance(facts, dict) or path.stat().st_size != facts.get("bytes"):
            raise RunError(
                f"{path} has {path.stat().st_size:,} bytes; {facts!r} were written. Export or download it anew."
            )
        if file_checksum(path) != facts.get("sha256"):
            raise RunError(f"{path} is not the file that was written (checksum). Export or download it anew.")
    return manifest


def read_export(folder: Path) -> Recommender:
    """Return the recommender of an exported folder, with its tables as float32.

    Raises
    ------
    RunError
        The folder is incomplete, or its parts do not fit together.
    """
    manifest = check_files(folder)
    config = read_json(folder / "config.json")
    try:
        tensors = load_file(folder / "model.safetensors")
        frame = pl.read_parquet(folder / "items.parquet")
        _check(config, tensors, frame)
        model = _model(config, tensors)
        catalogue = Catalogue(frame.drop(OWN_COLUMNS))
        spec = {name: config[name] for name in ("student", "options", "tied", "bias")}
        if not config.get(REPEATS, True):
            spec[REPEATS] = False
        if config.get(PRIOR):
            spec[PRIOR] = [float(one) for one in config[PRIOR]]
        if config.get(LEARNED):
            spec[LEARNED] = list(config[LEARNED])
        cold = np.array(config["cold"], dtype=np.int64)
        known = frame["popularity"].null_count() == 0
        counts = frame["popularity"].to_numpy().astype(np.int64) if known else None
        fingerprint = str(manifest["dataset_fingerprint"])
        text = TextPath.load(folder / "text.safetensors")
        length, added = int(config["length"]), int(config["added"])
        return Recommender(model, catalogue, spec, length, fingerprint, cold, {}, text, counts, added)
    except (SafetensorError, OSError, pl.exceptions.PolarsError, DataError) as error:
        raise RunError(f"{folder} is damaged: {error}. Export or download it anew.") from error
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, RecdistillError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder} does not fit together: {error}. Export or download it anew.") from error


def _check(config: Mapping[str, Any], tensors: Mapping[str, Array], frame: pl.DataFrame) -> None:
    """Compare what the files say about each other.

    Raises
    ------
    ValueError
        They differ.
    RunError
        A number is not finite.
    """
    from recdistill.export.exporting import require_finite

    count, hidden, size = (int(config[name]) for name in ("item_count", "hidden_size", "embedding_size"))
    shapes: dict[str, tuple[int, ...]] = {"item_table": (count, hidden)}
    if config["table"] == "int8":
        shapes["item_scale"] = (count,)
    if not config["tied"]:
        shapes["input_table"] = (count, size)
        if config["table"] == "int8":
            shapes["input_scale"] = (count,)
    if config["bias"]:
        shapes["item_bias"] = (count,)
    others = {name for name in tensors if not name.startswith("student.")}
    if others != set(shapes):
        raise ValueError(f"model.safetensors has the tables {sorted(others)}, not {sorted(shapes)}")
    for name, shape in shapes.items():
        kind = str(config["table"]) if name.endswith("_table") else "float32"
        if tensors[name].shape != shape or str(tensors[name].dtype) != kind:
            raise ValueError(f"{name} is {tensors[name].dtype} {tensors[name].shape}, not {kind} {shape}")
    for name, value in tensors.items():
        require_finite(name, value)
    if frame.height != count or not set(OWN_COLUMNS) <= set(frame.columns):
        raise ValueError(f"items.parquet has {frame.height} rows with {frame.columns}, not {count} items")
    if frame["index"].to_list() != list(range(count)):
        raise ValueError("the index of items.parquet is not 0, 1, 2, ...")
    if any(not 0 <= int(item) < count for item in config["cold"]):
        raise ValueError("a cold item is not in the catalogue")
    if not 0 <= int(config["added"]) < count:
        raise ValueError(f"{config['added']} items added to {count}")


def _model(config: Mapping[str, Any], tensors: Mapping[str, Array]) -> SequenceModel:
    """Build the student without memory of its own, then give it the file's numbers: sizes that lie cost nothing."""
    if config["student"] not in STUDENTS:
        raise ValueError(f"unknown student {config['student']!r}")
    if not 1 <= int(config["length"]) <= 100_000:
        raise ValueError(f"a length of {config['length']}")
    with torch.device("meta"):
        student = STUDENTS[config["student"]](**config["options"])
    numbers = {
        name.removeprefix("student."): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith("student.")
    }
    student.load_state_dict(numbers, assign=True)
    if (student.embedding_size, student.hidden_size) != (config["embedding_size"], config["hidden_size"]):
        raise ValueError(
            f"the student reads {student.embedding_size} and writes {student.hidden_size} numbers"
        )
    output = Ids.from_table(torch.from_numpy(unpack_table(tensors, "item")))
    entry = output if config["tied"] else Ids.from_table(torch.from_numpy(unpack_table(tensors, "input")))
    model = SequenceModel(student, entry, output, bias=bool(config["bias"]))
    if model.item_bias is not None:
        model.item_bias = torch.nn.Parameter(torch.from_numpy(tensors["item_bias"]))
    return model.eval()
