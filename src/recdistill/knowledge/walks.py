"""Sequences that a teacher wrote itself, and its answers along them: training rows that no user left behind.

A log holds each history once, while a student must answer the histories of tomorrow. A teacher that can be asked
about any history shows what it would say there (`recdistill.teachers.walks`). In a folder of knowledge they are
a part of their own, so that nothing which judges the teacher by the dataset's rows meets them::

    k/walks/walks.safetensors    items, and for each step the teacher's list
    k/walks/manifest.json
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge.arrays import open_arrays, write_arrays
from recdistill.knowledge.knowledge import ROW_FIELDS, Knowledge
from recdistill.runs import MANIFEST, read_manifest, require_fingerprint, write_manifest
from recdistill.types import KnowledgeRows

WALKS: Final = "walks"
_ARRAYS: Final = "walks.safetensors"
_ITEMS: Final = "items"


@dataclass(frozen=True, eq=False)
class Walks:
    """W sequences of T + 1 items, every item but the first a training row.

    Attributes
    ----------
    items
        ``(W, T + 1)`` int32 item indices, T at least 1.
    answers
        What the teacher said before each step: W · T rows, walk by walk, numbered from 0. The item that follows is
        the row's true item.
    manifest
        JSON-able: how they were made.

    Raises
    ------
    KnowledgeError
        Shapes do not fit, or an item is not in the catalogue.
    """

    items: npt.NDArray[np.int32]
    answers: Knowledge
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or self.items.shape[1] < 2 or self.steps * len(self) != len(self.answers):
            raise KnowledgeError(
                f"{len(self.answers):,} answers for walks of shape {self.items.shape}. Each item but the first of a "
                "walk has one: make them anew with recdistill teach."
            )
        if len(self) and not 0 <= self.items.min() <= self.items.max() < self.answers.item_count:
            raise KnowledgeError(
                f"a walk names an item outside 0..{self.answers.item_count - 1}: make them anew with recdistill teach."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.items.shape[1]) - 1

    def join(
        self, dataset: SequenceDataset, knowledge: Knowledge | None
    ) -> tuple[SequenceDataset, WithWalks | None, npt.NDArray[np.int64]]:
        """Return dataset and knowledge with the walks' rows in them, and those rows' ``(W * T,)`` ids.

        The dataset is for training batches alone: it has another fingerprint than the one that the user made.

        Raises
        ------
        KnowledgeError
            The lists of the rows and of the walks differ in length.
        """
        joined, row_ids = dataset.with_sequences(self.items.astype(np.int64))
        if knowledge is None:
            return joined, None, row_ids
        lists = [each.ranking.shape[1] for each in (knowledge, self.answers) if each.ranking is not None]
        if len(set(lists)) > 1:
            raise KnowledgeError(
                f"the teacher listed {lists[0]} items of each row and {lists[1]} of each step of its walks. Both must "
                "agree: make the knowledge anew with recdistill teach, or learn with train.walks=false."
            )
        return joined, WithWalks(knowledge, self.answers, int(row_ids[0])), row_ids


@dataclass(frozen=True, eq=False)
class WithWalks:
    """A teacher's answers to rows of a dataset and to the steps of its walks, looked up in both; nothing is copied.

    Attributes
    ----------
    knowledge
        Of the dataset's rows.
    answers
        Of the steps, numbered from 0.
    first
        Row id of step 0; the steps' ids lie above all others.
    """

    knowledge: Knowledge
    answers: Knowledge
    first: int

    def rows_for(self, row_ids: Tensor) -> KnowledgeRows:
        """Join by row id, as `Knowledge.rows_for`; what only one of the two has is absent."""
        stepped = row_ids >= self.first  # (S,)
        one, two = self.knowledge.rows_for(row_ids), self.answers.rows_for(row_ids - self.first)
        found: dict[str, Any] = {}
        for name in (each.name for each in fields(KnowledgeRows)):
            of_row, of_step = getattr(one, name), getattr(two, name)
            if of_row is not None and of_step is not None:
                found[name] = torch.where(stepped.view(-1, *[1] * (of_row.dim() - 1)), of_step, of_row)
        return KnowledgeRows(**found)


def write_walks(walks: Walks, folder: Path, dataset_fingerprint: str) -> None:
    """Write the part ``walks`` of a knowledge folder that is being written.

    Raises
    ------
    KnowledgeError
        An answer is no list of items with growing distances, see `Knowledge.check`.
    """
    walks.answers.check(walks.items[:, 1:].ravel())
    part = folder / WALKS
    part.mkdir()
    write_arrays(part / _ARRAYS, {_ITEMS: walks.items, **walks.answers.fields})
    facts = {
        "walks": len(walks),
        "steps": walks.steps,
        "item_count": walks.answers.item_count,
        "dataset_fingerprint": dataset_fingerprint,
    }
    write_manifest(part, WALKS, {**walks.manifest, **facts})


def has_walks(folder: Path | str) -> bool:
    """Whether a knowledge folder holds walks."""
    return (Path(folder) / WALKS / MANIFEST).is_file()


def load_walks(folder: Path | str, dataset: SequenceDataset) -> Walks:
    """Open the walks of a knowledge folder.

    Raises
    ------
    KnowledgeError
        It holds none, or they are damaged.
    FingerprintError
        They were made from another dataset.
    """
    if not has_walks(folder):
        raise KnowledgeError(
            f"train.walks is on, and the teacher of {folder} left no walks there. Teachers that write them: recdistill "
            "teach graph, embedding and student (option --walks). To learn without: train.walks=false"
        )
    part = Path(folder) / WALKS
    manifest = read_manifest(part, WALKS)
    require_fingerprint(str(manifest["dataset_fingerprint"]), dataset.fingerprint, part)
    arrays = open_arrays(part / _ARRAYS)
    items = arrays.pop(_ITEMS, None)
    if items is None or items.shape != (manifest["walks"], manifest["steps"] + 1):
        raise KnowledgeError(
            f"{part / _ARRAYS} does not hold the walks that its manifest names. Both must agree: make the knowledge "
            "anew with recdistill teach."
        )
    rows = np.arange(manifest["walks"] * manifest["steps"])
    known: dict[str, Any] = {name: arrays[name] for name in ROW_FIELDS if name in arrays}
    answers = Knowledge(rows, int(manifest["item_count"]), **known)
    return Walks(items, answers, {k: v for k, v in manifest.items() if k not in ("kind", "schema")})
