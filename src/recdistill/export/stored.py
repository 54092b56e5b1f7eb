"""A recommender's folder: ``model.safetensors``, ``config.json``, ``items.parquet``, ``manifest.json``.

Where item vectors come from text, ``text.safetensors`` (a title's way to a vector) and ``text_maps.safetensors`` (for
other catalogues) lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.data import Catalogue
from recdistill.errors import RunError
from recdistill.export.recommender import Recommender
from recdistill.export.text_path import TextPath
from recdistill.item_encoders import Ids, TextTable
from recdistill.runs import atomic_folder, read_json, read_manifest, write_json, write_manifest
from recdistill.students import STUDENTS, SequenceModel
from recdistill.user_encoders import SAVED, UserEncoder

_OUTPUT: Final = "output_encoder."
_USERS: Final = "user_encoder."
_MAPS: Final = "text_maps.safetensors"
_TEXT: Final = "text.safetensors"


def write_recommender(recommender: Recommender, folder: Path, *, overwrite: bool) -> None:
    """Write the folder whole, or nothing; a tied table is written once."""
    tensors = _tensors(recommender.model.state_dict())
    if recommender.spec["tied"]:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(_OUTPUT)}
    facts = {**recommender.spec, "length": recommender.length, "cold": recommender.cold.tolist()}
    with atomic_folder(folder, overwrite=overwrite) as out:
        save_file(tensors, out / "model.safetensors")
        if recommender.text_maps:
            save_file(_tensors(_joined(recommender.text_maps)), out / _MAPS)
        write_json(out / "config.json", facts)
        recommender.catalogue.frame.write_parquet(out / "items.parquet")
        if recommender.text is not None:
            recommender.text.save(out / _TEXT)
        write_manifest(out, "recommender", {"dataset_fingerprint": recommender.dataset_fingerprint})


def read_recommender(folder: Path) -> Recommender:
    """Read a recommender folder, or the best student of a run folder; of several seeds the first.

    Raises
    ------
    RunError
        The folder is neither, or its files are damaged.
    """
    folder = min(folder.glob("seed-*"), key=lambda path: int(path.name.split("-")[1]), default=folder)
    if (folder / "best").is_dir():
        folder = folder / "best"
    manifest = read_manifest(folder, "recommender")
    spec = read_json(folder / "config.json")
    catalogue = Catalogue(pl.read_parquet(folder / "items.parquet"))
    try:
        model = _rebuilt(spec, load_file(folder / "model.safetensors"))
        maps = _maps(folder / _MAPS)
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise RunError(f"{folder} is damaged: {error}. Export it, or train it, anew.") from error
    return Recommender(
        model,
        catalogue,
        {key: value for key, value in spec.items() if key not in ("length", "cold")},
        int(spec["length"]),
        str(manifest["dataset_fingerprint"]),
        np.array(spec.get("cold", []), dtype=np.int64),
        maps,
        TextPath.load(folder / _TEXT),
    )


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that share no memory, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def _joined(maps: Mapping[str, TextTable]) -> dict[str, Tensor]:
    """Return the tensors of both sides, ``input.mean`` for the `mean` of the input's."""
    return {
        f"{side}.{name}": value for side, made in maps.items() for name, value in made.state_dict().items()
    }


def _maps(path: Path) -> dict[str, TextTable]:
    if not path.is_file():
        return {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in load_file(path).items():
        side, _, rest = name.partition(".")
        parts.setdefault(side, {})[rest] = value
    return {side: TextTable.from_state(state).eval() for side, state in parts.items()}


def _rebuilt(spec: Mapping[str, Any], tensors: dict[str, Tensor]) -> SequenceModel:
    student = STUDENTS[spec["student"]](**spec["options"])
    table = Ids.from_table(tensors["item_encoder.weight"])
    output = table if spec["tied"] else Ids.from_table(tensors["output_encoder.weight"])
    users = {k.removeprefix(_USERS): v for k, v in tensors.items() if k.startswith(_USERS)}
    known = _user_encoder(spec.get("user_encoder"), users)
    model = SequenceModel(student, table, output, bias=spec["bias"], user_encoder=known)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not (spec["tied"] and name.startswith(_OUTPUT))]
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    return model.eval()


def _user_encoder(saved: Mapping[str, Any] | None, state: dict[str, Tensor]) -> UserEncoder | None:
    if saved is None or not state:  # over another catalogue nothing is known of users
        return None
    return SAVED[saved["saved_as"]].from_state(state, saved["options"])
