"""A knowledge folder: ``knowledge.safetensors`` (memory-mapped) and ``manifest.json``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge.arrays import open_arrays, write_arrays
from recdistill.knowledge.knowledge import FIELDS, Knowledge
from recdistill.knowledge.walks import WALKS, Walks, has_walks, write_walks
from recdistill.runs import atomic_folder, fingerprint, read_manifest, require_fingerprint, write_manifest
from recdistill.types import LEARNED

ARRAYS: Final = "knowledge.safetensors"


def provenance(dataset: SequenceDataset) -> dict[str, Any]:
    """Return what a manifest says about the dataset the teacher was asked on.

    ``dataset`` (name), ``dataset_fingerprint`` (items, events, rows) and ``title_hash`` (the titles, which
    the fingerprint leaves out: a teacher that reads text depends on them); of a view that learns from further splits
    (`SequenceDataset.learning_from`) ``learned`` as well.
    """
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "title_hash": title_hash(dataset.catalogue.titles),
        **({LEARNED: list(dataset.learned)} if dataset.learned else {}),
    }


def title_hash(titles: Iterable[str]) -> str:
    """Return the SHA-256 over titles in item order."""
    return fingerprint(*titles)


def save_knowledge(
    knowledge: Knowledge,
    folder: Path | str,
    *,
    overwrite: bool = False,
    dataset: SequenceDataset | None = None,
    walks: Walks | None = None,
) -> None:
    """Check every value, then write the folder, whole or not at all.

    Parameters
    ----------
    knowledge
        Its manifest is written with it.
    folder
        Where to.
    overwrite
        Whether a knowledge folder that is there may be replaced.
    dataset
        The dataset it belongs to; needed where the manifest has no ``dataset_fingerprint``.
    walks
        Sequences that the teacher wrote itself, kept beside its answers.

    Raises
    ------
    KnowledgeError
        The contents are wrong (see `Knowledge.check`), or the dataset is unknown.
    RunError
        The folder exists and `overwrite` is False.
    """
    knowledge.check(None if dataset is None else known_targets(knowledge, dataset))
    manifest = {**knowledge.manifest, **(provenance(dataset) if dataset is not None else {})}
    content = manifest_of(knowledge, manifest)
    with atomic_folder(Path(folder), overwrite=overwrite) as out:
        write_arrays(out / ARRAYS, {"row_ids": knowledge.row_ids, **knowledge.fields})
        write_manifest(out, "knowledge", content)
        if walks is not None:
            write_walks(walks, out, str(content["dataset_fingerprint"]))


def load_knowledge(
    folder: Path | str, dataset: SequenceDataset | None = None, *, check: bool = False
) -> Knowledge:
    """Open a knowledge folder. Arrays are mapped, not read: a table costs memory when it is used.

    Parameters
    ----------
    folder
        What `save_knowledge` or `ShardWriter.finish` wrote.
    dataset
        If given, the knowledge must come from it.
    check
        Whether to look at every value (reads the whole file).

    Raises
    ------
    RunError
        `folder` is no knowledge folder.
    FingerprintError
        It was made from another dataset.
    KnowledgeError
        It is damaged, or the dataset's titles have changed since.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, "knowledge")
    if dataset is not None:
        _require_dataset(manifest, dataset, folder)
    arrays = open_arrays(folder / ARRAYS)
    rows = arrays.pop("row_ids", None)
    if rows is None or len(rows) != manifest.get("rows") or set(arrays) != set(manifest.get("fields", {})):
        raise KnowledgeError(
            f"{folder / ARRAYS} does not hold the rows and fields that its manifest names: the writing was "
            "interrupted. Both must agree: run the same recdistill teach command again."
        )
    content = {name: value for name, value in manifest.items() if name not in ("kind", "schema")}
    known: dict[str, Any] = {name: arrays[name] for name in FIELDS if name in arrays}
    knowledge = Knowledge(rows, int(manifest["item_count"]), **known, manifest=content)
    if check:
        knowledge.check(None if dataset is None else known_targets(knowledge, dataset))
    return knowledge


def available_fields(folder: Path | str, dataset: SequenceDataset | None = None) -> frozenset[str]:
    """Return what a knowledge folder has for strategies to read: its fields, and ``walks``.

    Raises
    ------
    RunError, FingerprintError, KnowledgeError
        As `load_knowledge`.
    """
    fields = frozenset(load_knowledge(folder, dataset).fields)
    return fields | {WALKS} if has_walks(folder) else fields


def _require_dataset(manifest: Mapping[str, Any], dataset: SequenceDataset, folder: Path) -> None:
    require_fingerprint(str(manifest.get("dataset_fingerprint")), dataset.fingerprint, folder)
    if manifest.get("title_hash", title_hash(dataset.catalogue.titles)) != title_hash(
        dataset.catalogue.titles
    ):
        raise KnowledgeError(
            f"{folder} was made when the items had other titles. A teacher that read text must have read "
            "the titles of the dataset in use: make it anew with recdistill teach."
        )


def known_targets(knowledge: Knowledge, dataset: SequenceDataset) -> npt.NDArray[np.int64]:
    """Return the ``(N,)`` true items of the knowledge's rows.

    Raises
    ------
    DataError
        A row is not in the dataset.
    """
    return dataset.targets(dataset.positions_of(knowledge.row_ids))


def manifest_of(knowledge: Knowledge, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a folder: what the teacher said about itself, and what the arrays hold.

    Raises
    ------
    KnowledgeError
        The dataset is not named.
    """
    require_origin(manifest)
    return {
        "cpu_seconds": round(process_time(), 1),  # of the process that asked the teacher, all threads
        **manifest,
        "rows": len(knowledge),
        "item_count": knowledge.item_count,
        "fields": {
            name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in knowledge.fields.items()
        },
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            package: _version(package) for package in ("recdistill", "numpy", "safetensors", "torch")
        },
    }


def require_origin(manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest that does not name its dataset.

    Raises
    ------
    KnowledgeError
        There is no ``dataset_fingerprint``.
    """
    if not manifest.get("dataset_fingerprint"):
        raise KnowledgeError(
            "the knowledge does not say which dataset it belongs to. Its manifest must hold "
            "dataset_fingerprint: pass dataset= to save_knowledge, or build the manifest with "
            "provenance(dataset)."
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return None


def add_to_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add what is known only when the work is done to a knowledge folder's manifest."""
    manifest = read_manifest(folder, "knowledge")
    content = {key: value for key, value in manifest.items() if key not in ("kind", "schema")}
    write_manifest(folder, "knowledge", {**content, **facts})
