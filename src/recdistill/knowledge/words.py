"""A folder of knowledge in words: what a language model wrote of users and items, and the vectors of it.

::

    t/manifest.json        who wrote, about which dataset, with which prompts
    t/words.safetensors    vectors, and which rows may use which text
    t/users.parquet ...    the texts
    t/encoder/             what made the vectors, where it is not a named model
    t/answers/             answers as they came; a run that was stopped goes on from them

A text about a user was written of some of his events, the newest of which is kept with it. Only rows whose answer came
later may use it; `Words.check` looks at every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError, RunError
from recdistill.knowledge.arrays import open_arrays, write_arrays
from recdistill.knowledge.store import provenance
from recdistill.runs import (
    MANIFEST,
    atomic_file,
    inside,
    read_manifest,
    require_fingerprint,
    write_manifest,
)

Ints = npt.NDArray[np.int64]
KIND: Final = "rationales"
ARRAYS: Final = "words.safetensors"
#: What ties rows to texts; a maker whose rows use no texts of users leaves them out.
_INDEX: Final = ("row_ids", "places", "users", "newest_event")


@dataclass(frozen=True, eq=False)
class Words:
    """What a language model wrote, as vectors.

    Attributes
    ----------
    maker
        Which system wrote it: ``kar``, ``slim`` ...
    arrays
        By name. Those that tie V texts of users to rows: ``row_ids (N,)`` ascending, ``places (N,)`` the text each row
        may use, ``users (V,)`` whose the text is, ``newest_event (V,)`` the newest event that it was written of.
    manifest
        JSON-able.
    folder
        Where it was read from, or None.
    """

    maker: str
    arrays: Mapping[str, npt.NDArray[Any]]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return an array.

        Raises
        ------
        KnowledgeError
            There is none of this name.
        """
        if name not in self.arrays:
            raise KnowledgeError(
                f"the knowledge in words of {self.maker!r} has no {name}; it has {', '.join(sorted(self.arrays))}. "
                "Each strategy reads what its own maker wrote: recdistill rationales NAME."
            )
        return self.arrays[name]

    def table(self, name: str) -> pl.DataFrame:
        """Return a table of texts, such as ``users``.

        Raises
        ------
        KnowledgeError
            It was not read from a folder, or the folder has no such table.
        """
        path = None if self.folder is None else inside(self.folder, f"{name}.parquet")
        if path is None or not path.is_file():
            raise KnowledgeError(
                f"there is no table {name!r} of texts in {self.folder}. It is written by recdistill rationales: run "
                "it again."
            )
        return pl.read_parquet(path)

    def check(self, dataset: SequenceDataset) -> Words:
        """Refuse texts that tell a row its own answer, or anything after it, and return self.

        Raises
        ------
        KnowledgeError
            A row uses a text of another user, or one written of an event at or after its answer.
        """
        if any(name not in self.arrays for name in _INDEX):
            return self
        ids, places, users, newest = (np.asarray(self.arrays[name]) for name in _INDEX)
        rows = dataset.positions_of(ids)
        if len(ids) and (places.min() < 0 or places.max() >= len(users)):
            raise KnowledgeError(
                f"a row uses text {places.max()} of {len(users)}. Allowed: texts that are there. Make the folder "
                "anew: recdistill rationales."
            )
        events, answers = newest[places], dataset.row_events[rows]
        wrong = (users[places] != dataset.row_sequences[rows]) | (events >= answers)
        if dataset.timestamps is not None:
            wrong |= dataset.timestamps[events] >= dataset.timestamps[answers]
        if wrong.any():
            raise KnowledgeError(
                f"row {ids[wrong][0]} ({wrong.sum():,} of {len(ids):,} rows) would use a text that was written of "
                "another user, or of an event at or after its own answer. Allowed: texts of earlier events alone. "
                "Make the folder anew: recdistill rationales."
            )
        return self


def save_words(
    words: Words,
    folder: Path | str,
    dataset: SequenceDataset,
    tables: Mapping[str, pl.DataFrame],
    *,
    encoder: Callable[[Path], None] | None = None,
) -> None:
    """Write the folder's results beside its answers; the manifest comes last and makes it whole.

    Parameters
    ----------
    words
        Checked before anything is written.
    folder
        Where to.
    dataset
        What it belongs to.
    tables
        Texts by name.
    encoder
        Writes what made the vectors into the folder it is given.

    Raises
    ------
    KnowledgeError
        A row would use what it may not, see `Words.check`.
    """
    words.check(dataset)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    write_arrays(folder / ARRAYS, {name: np.asarray(array) for name, array in words.arrays.items()})
    for name, table in tables.items():
        with atomic_file(inside(folder, f"{name}.parquet")) as temporary:
            table.write_parquet(temporary)
    if encoder is not None:
        (folder / "encoder").mkdir(exist_ok=True)
        encoder(folder / "encoder")
    shapes = {name: [str(array.dtype), *array.shape] for name, array in words.arrays.items()}
    write_manifest(
        folder,
        KIND,
        {**words.manifest, "maker": words.maker, "arrays": shapes, **provenance(dataset)},
    )


def load_words(folder: Path | str, dataset: SequenceDataset | None = None) -> Words:
    """Open a folder of `save_words`.

    Raises
    ------
    RunError
        It is no such folder, or its work is not finished.
    FingerprintError
        It was made from another dataset.
    KnowledgeError
        It is damaged, or a row would use what it may not.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, KIND)
    if dataset is not None:
        require_fingerprint(str(manifest.get("dataset_fingerprint")), dataset.fingerprint, folder)
    arrays = open_arrays(folder / ARRAYS)
    if set(arrays) != set(manifest.get("arrays", {})):
        raise KnowledgeError(
            f"{folder / ARRAYS} does not hold what its manifest names: the writing was interrupted. Both must agree: "
            "run the same recdistill rationales command again."
        )
    content = {name: value for name, value in manifest.items() if name not in ("kind", "schema")}
    words = Words(str(manifest.get("maker")), arrays, content, folder)
    return words if dataset is None else words.check(dataset)


def is_words(folder: Path | str) -> bool:
    """Return whether a folder holds knowledge in words, rather than a ranking teacher's."""
    try:
        return bool(read_manifest(Path(folder), KIND))
    except RunError:  # whatever else it is, the loader of knowledge will say what is wrong with it
        return False
