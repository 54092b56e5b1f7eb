"""A teacher's answers as they come: append-only shards keyed by row id, merged when all is asked.

A teacher that takes hours is killed now and then. Each shard is written whole or not at all,
`ShardWriter.pending` says what is left, and `ShardWriter.finish` writes the same bytes however often the
work was interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.errors import KnowledgeError
from recdistill.knowledge.arrays import Stream, open_arrays, write_arrays
from recdistill.knowledge.knowledge import ROW_FIELDS, Knowledge
from recdistill.knowledge.lists import row_chunks
from recdistill.knowledge.store import ARRAYS, load_knowledge, manifest_of, require_origin
from recdistill.runs import MANIFEST, fingerprint, read_manifest, remove_folder, write_manifest

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class ShardWriter:
    """Collects knowledge in ``folder/shards/`` and merges it into ``folder/knowledge.safetensors``.

    Parameters
    ----------
    folder
        The knowledge folder; one that was begun, or finished, with the same settings is continued.
    item_count
        I.
    manifest
        Teacher, metric, options and `provenance` of the dataset. A folder with other settings is refused.

    Raises
    ------
    KnowledgeError
        The folder was begun with other settings, or the manifest names no dataset.
    """

    def __init__(self, folder: Path | str, item_count: int, manifest: Mapping[str, Any]) -> None:
        require_origin(manifest)
        self.folder = Path(folder)
        self.shards = self.folder / "shards"
        self.item_count = item_count
        settings = fingerprint(json.dumps([item_count, dict(manifest)], sort_keys=True))
        self.manifest = {**manifest, "settings": settings}
        for place, kind in ((self.folder, "knowledge"), (self.shards, "shards")):
            if (place / MANIFEST).is_file() and read_manifest(place, kind).get("settings") != settings:
                raise KnowledgeError(
                    f"{place} holds answers that were made with other settings. A folder holds the answers "
                    "of one teacher with one set of options: choose another --out, or delete the folder."
                )
        if not (self.shards / MANIFEST).is_file():
            write_manifest(self.shards, "shards", {"settings": settings})

    @property
    def files(self) -> list[Path]:
        """What has been answered: the merged file, if there is one, then the shards in the order of
        writing."""
        merged = [self.folder / ARRAYS] if (self.folder / ARRAYS).is_file() else []
        return [*merged, *sorted(self.shards.glob("[0-9]*.safetensors"))]

    def pending(self, row_ids: npt.ArrayLike) -> Ints:
        """Return the rows that are not answered yet, in the order given."""
        wanted = np.asarray(row_ids, dtype=np.int64)
        done = [open_arrays(path)["row_ids"] for path in self.files]
        return wanted[~np.isin(wanted, np.concatenate(done))] if done else wanted

    def append(self, row_ids: npt.ArrayLike, **fields: npt.ArrayLike) -> None:
        """Write the answers for n rows as one shard.

        Parameters
        ----------
        row_ids
            ``(n,)``, unique, any order.
        **fields
            Fields of `Knowledge` that have one entry a row, in the order of `row_ids`; the same ones, with
            the same widths, in every shard.

        Raises
        ------
        KnowledgeError
            A field does not exist, or a shape or value is wrong.
        """
        rows = np.asarray(row_ids, dtype=np.int64)
        unknown = sorted(set(fields) - set(ROW_FIELDS))
        if unknown:
            raise KnowledgeError(
                f"a shard cannot hold {unknown[0]!r}. Fields with one entry a row are: "
                f"{', '.join(ROW_FIELDS)}. Item embeddings are passed to finish()."
            )
        order = np.argsort(rows, kind="stable")
        arrays: dict[str, Any] = {name: np.asarray(value)[order] for name, value in fields.items()}
        shard = Knowledge(rows[order], self.item_count, **arrays).check()
        _require_layout(self.files[:1], shard)
        numbers = [int(path.stem) for path in self.shards.glob("[0-9]*.safetensors")]
        path = self.shards / f"{max(numbers, default=-1) + 1:05d}.safetensors"
        write_arrays(path, {"row_ids": shard.row_ids, **shard.fields})

    def finish(self, item_embeddings: Array | None = None) -> Knowledge:
        """Merge all answers by row id into the knowledge folder, drop the shards, and return the knowledge.

        A row that was answered twice keeps its first answer. Memory stays within a few chunks.

        Parameters
        ----------
        item_embeddings
            ``(I, D)`` or None. Where the folder was finished before, its table is kept if None is given.

        Raises
        ------
        KnowledgeError
            Nothing has been answered, or the result does not pass the checks.
        """
        sources = [open_arrays(path) for path in self.files]
        if not sources:
            raise KnowledgeError(
                f"{self.shards} holds no answers. At least one row must have been answered: run recdistill "
                "teach."
            )
        if item_embeddings is None:
            item_embeddings = sources[0].get("item_embeddings")
        rows, owner, slot = _merge_order([source["row_ids"] for source in sources])
        merged: dict[str, Array | Stream] = {"row_ids": rows}
        for name in ROW_FIELDS:
            if name in sources[0]:
                merged[name] = _gathered([source[name] for source in sources], owner, slot)
        if item_embeddings is not None:
            merged["item_embeddings"] = item_embeddings
        write_arrays(self.folder / ARRAYS, merged)
        arrays: dict[str, Any] = open_arrays(self.folder / ARRAYS)
        knowledge = Knowledge(
            arrays.pop("row_ids"), self.item_count, **arrays, manifest=self.manifest
        ).check()
        write_manifest(self.folder, "knowledge", manifest_of(knowledge, self.manifest))
        remove_folder(self.shards)
        return load_knowledge(self.folder)


def _require_layout(files: list[Path], shard: Knowledge) -> None:
    if not files:
        return
    first = {name: a for name, a in open_arrays(files[0]).items() if name in ROW_FIELDS}
    expected = {name: (a.dtype, a.shape[1:]) for name, a in first.items()}
    found = {name: (a.dtype, a.shape[1:]) for name, a in shard.fields.items()}
    if expected != found:
        raise KnowledgeError(
            f"the shard has the fields {_layout(found)}, the folder {_layout(expected)}. All shards hold "
            "the same fields with the same widths: pad short lists with -1."
        )


def _layout(fields: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(fields.items()))


def _merge_order(row_ids: list[Ints]) -> tuple[Ints, Ints, Ints]:
    """Return the ascending unique row ids, and for each which source has it first and where in it."""
    rows, first = np.unique(np.concatenate(row_ids), return_index=True)
    ends = np.cumsum([len(ids) for ids in row_ids])
    owner = np.searchsorted(ends, first, side="right")
    return rows, owner, first - (ends - [len(ids) for ids in row_ids])[owner]


def _gathered(sources: list[Array], owner: Ints, slot: Ints) -> Stream:
    shape = (len(owner), *sources[0].shape[1:])
    return Stream(sources[0].dtype, shape, partial(_pieces, sources, owner, slot))


def _pieces(sources: list[Array], owner: Ints, slot: Ints) -> Iterator[Array]:
    width = int(np.prod(sources[0].shape[1:], dtype=np.int64))
    for rows in row_chunks(len(owner), width):
        piece = np.empty((rows.stop - rows.start, *sources[0].shape[1:]), dtype=sources[0].dtype)
        for source in np.unique(owner[rows]):
            chosen = owner[rows] == source
            piece[chosen] = sources[source][slot[rows][chosen]]
        yield piece
