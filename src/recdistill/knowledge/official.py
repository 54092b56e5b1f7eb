"""The three files that DLLM2Rec's ``main.py`` reads, in both directions (spec: language_model_side 2.8).

* ``all_embeddings.pt``: tensor ``(I, D)``, the *item* embeddings in item order.
* ``myrank_train.txt``: ``(n_train, K)`` item ids, best first, one row of the training frame a line.
* ``confidence_train.txt``: ``(n_train, K)`` the distances of those items.

The format has no row ids: line r belongs to the r-th training row. A fourth file, ``uid_train.txt`` with
one row id a line, or row ids as the first column of both text files, makes the join explicit.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.store import known_targets, provenance
from recdistill.runs import atomic_folder, require_fingerprint
from recdistill.types import PAD, SPLITS

EMBEDDINGS: Final = "all_embeddings.pt"
RANKING: Final = "myrank_train.txt"
DISTANCES: Final = "confidence_train.txt"
ROW_IDS: Final = "uid_train.txt"

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scaling = Literal["none", "row", "all"]


def import_official(
    folder: Path | str,
    dataset: SequenceDataset,
    *,
    metric: str = "l2",
    uid_file: Path | str | None = None,
    uid_column: bool = False,
) -> Knowledge:
    """Read the authors' three files.

    Parameters
    ----------
    folder
        Where they lie.
    dataset
        The dataset whose training rows and items they speak of.
    metric
        How the distances were measured; ``l2`` is what BIGRec's ``evaluate.py`` does.
    uid_file
        One row id a line; ``uid_train.txt`` in `folder` is used where it exists. Without, line r of the text
        files is the r-th training row.
    uid_column
        Whether both text files start with a column of row ids.

    Raises
    ------
    KnowledgeError
        A file is missing or unreadable, has the wrong number of rows or items, is shuffled against another,
        or holds what the authors' README asks for in place of what their code needs (a matrix of ranks).
    """
    folder = Path(folder)
    vectors = _read_embeddings(folder / EMBEDDINGS, dataset.item_count)
    ranking, distances = _read_table(folder / RANKING), _read_table(folder / DISTANCES)
    named = folder / ROW_IDS if uid_file is None and (folder / ROW_IDS).is_file() else uid_file
    rows = None if named is None else _integers(_read_table(Path(named))[:, 0], Path(named))
    if uid_column:
        columns = [
            _integers(table[:, 0], folder / name)
            for table, name in ((ranking, RANKING), (distances, DISTANCES))
        ]
        rows = _agreed(columns if rows is None else [rows, *columns])
        ranking, distances = ranking[:, 1:], distances[:, 1:]
    if ranking.shape != distances.shape:
        raise KnowledgeError(
            f"{RANKING} has shape {ranking.shape}, {DISTANCES} {distances.shape}. Both must have one line "
            "a training row and one column a listed item: save the indices and the values of one "
            "distance.topk(n, largest=False). Where the first column holds row ids, it must stand in "
            "both: pass --uid-column."
        )
    order, row_ids = _train_order(rows, len(ranking), dataset)
    knowledge = Knowledge(
        row_ids=row_ids,
        item_count=dataset.item_count,
        ranking=_integers(ranking[order], folder / RANKING),  # type: ignore[arg-type]  # cast by Knowledge
        ranking_distance=distances[order].astype(np.float32),
        item_embeddings=vectors,
        manifest={
            "teacher": "precomputed",
            "metric": metric,
            "source": "DLLM2Rec files",
            "rows_by": "position" if rows is None else "row id",
            **provenance(dataset),
        },
    )
    return knowledge.check(known_targets(knowledge, dataset))


def export_official(
    knowledge: Knowledge,
    folder: Path | str,
    dataset: SequenceDataset,
    *,
    k: int | None = None,
    scaling: Scaling = "none",
    overwrite: bool = False,
) -> None:
    """Write the authors' three files for all training rows, in the order of the training frame, in float32.

    Parameters
    ----------
    knowledge
        Needs ``ranking``, ``ranking_distance`` and ``item_embeddings``, and lists of at least `k` items.
    folder
        Where to; it holds the three files and nothing else.
    dataset
        The dataset the knowledge was made from.
    k
        Items a line; all that the lists have by default. The authors use 10.
    scaling
        Min-max scaling of the distances to 0..1: over each ``row``, over ``all``, or ``none``. The authors'
        code takes ``exp(-distance) + 1e-8``, which is uniform for raw distances of language models (spec
        4.3-4).
    overwrite
        Whether three files that are there may be replaced; a folder that holds anything else never is.

    Raises
    ------
    KnowledgeError
        A field or a row is missing, a list is too short, or `folder` holds other files.
    FingerprintError
        The knowledge was made from another dataset.
    """
    require_fingerprint(
        str(knowledge.manifest.get("dataset_fingerprint")), dataset.fingerprint, "the knowledge"
    )
    missing = [f for f in ("ranking", "ranking_distance", "item_embeddings") if f not in knowledge.fields]
    if missing:
        raise KnowledgeError(
            f"the knowledge has no {', '.join(missing)}. The authors' files hold a ranking, its distances "
            "and item embeddings: export the knowledge of a teacher that gives all three, such as: "
            "recdistill teach embedding"
        )
    rows = dataset.row_ids[dataset.rows("train")]
    knowledge.select("error", rows)
    cut = knowledge if k is None else knowledge.top(k)
    said = cut.rows_for(rows)
    ranking, distances = np.asarray(said.ranking), np.asarray(said.ranking_distance)
    shortest = int((ranking != PAD).sum(axis=1).min(initial=ranking.shape[1]))
    wanted = ranking.shape[1] if k is None else k
    if shortest < wanted:
        raise KnowledgeError(
            f"the shortest list of a training row has {shortest} items, {wanted} are wanted. The authors' "
            f"code reads -1 as the last item, so lists must be full: pass --k {max(shortest, 1)} or less."
        )
    _prepare(Path(folder), overwrite)
    with atomic_folder(Path(folder)) as out:
        torch.save(knowledge.item_table, out / EMBEDDINGS)
        _write_table(ranking, out / RANKING)
        _write_table(min_max(distances, scaling), out / DISTANCES)


def min_max(distances: npt.NDArray[np.float32], scaling: Scaling) -> npt.NDArray[np.float32]:
    """Scale ``(n, K)`` distances to 0..1 over each row, over all, or not at all; equal distances become 0."""
    if scaling == "none" or not distances.size:
        return distances
    axis = 1 if scaling == "row" else None
    low = distances.min(axis=axis, keepdims=True)
    span = distances.max(axis=axis, keepdims=True) - low
    return np.asarray((distances - low) / np.where(span > 0, span, 1), dtype=np.float32)


def _prepare(folder: Path, overwrite: bool) -> None:
    if not overwrite or not folder.is_dir():
        return
    present = {path.name for path in folder.iterdir()}
    if others := sorted(present - {EMBEDDINGS, RANKING, DISTANCES}):
        raise KnowledgeError(
            f"{folder} holds {others[0]!r}, which is none of the authors' three files, so it is not "
            "replaced. Choose another --out."
        )
    for name in present:
        (folder / name).unlink()


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise KnowledgeError(
            f"{path} does not exist. The folder must hold {EMBEDDINGS}, {RANKING} and {DISTANCES}: copy "
            "the file there, or write all three with: recdistill knowledge export k/ --dataset d/ --out "
            "files/"
        )


def _read_embeddings(path: Path, item_count: int) -> npt.NDArray[Any]:
    _require_file(path)
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise KnowledgeError(
            f"{path} cannot be read as a tensor ({str(error).splitlines()[0]}). Only tensors are read, no "
            "other Python objects: write it again with torch.save(torch.as_tensor(vectors), path)."
        ) from None
    if not isinstance(value, torch.Tensor) or value.ndim != 2 or not value.is_floating_point():
        found = (
            f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        raise KnowledgeError(
            f"{path} holds {found}. It must hold one tensor (items, dimensions) of floating point numbers: "
            "write it again with torch.save."
        )
    if len(value) != item_count:
        padded = " The last row seems to be for the padding item: save vectors[:-1]." * (
            len(value) == item_count + 1
        )
        raise KnowledgeError(
            f"{path} has {len(value):,} rows, the dataset {item_count:,} items.{padded} It must hold the "
            "embedding of each item in the order of items.parquet (not predict_embeddings, which belong "
            "to generated texts)."
        )
    kept = value if value.dtype in (torch.float16, torch.float32) else value.float()
    return kept.detach().contiguous().numpy()


def _read_table(path: Path) -> Floats:
    _require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is refused below, with what to do
            table = np.loadtxt(path, dtype=np.float64, ndmin=2, comments=None)
    except ValueError as error:  # also UnicodeDecodeError
        raise KnowledgeError(
            f"{path} is no table of numbers ({str(error).rstrip('.')}). Each line must hold the same count "
            "of numbers with blanks between them: write it with numpy.savetxt."
        ) from None
    if not table.size:
        raise KnowledgeError(
            f"{path} is empty. It must hold one line a training row: write it with numpy.savetxt."
        )
    return table


def _integers(values: Floats, path: Path) -> Ints:
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    wrong = whole != values
    if wrong.any():
        raise KnowledgeError(
            f"{path} holds {values[wrong][0]}, which is no id. Ids are whole numbers; distances belong "
            f"into {DISTANCES}: check that the two files are not swapped."
        )
    return whole


def _agreed(columns: list[Ints]) -> Ints:
    for other in columns[1:]:
        if len(other) != len(columns[0]) or (other != columns[0]).any():
            line = int(np.argmax(other[: len(columns[0])] != columns[0][: len(other)])) + 1
            raise KnowledgeError(
                f"the rows are shuffled: the row ids of the files differ from line {line} on. Line r of "
                "every file must belong to one row: sort all files by row id and import again."
            )
    return columns[0]


def _train_order(rows: Ints | None, count: int, dataset: SequenceDataset) -> tuple[Ints, Ints]:
    """Return the order that sorts the lines by row id, and the row ids in that order."""
    train = dataset.row_ids[dataset.rows("train")]
    if rows is None:
        if count != len(train):
            counts = ", ".join(f"{split} {len(dataset.rows(split)):,}" for split in SPLITS)
            raise KnowledgeError(
                f"{RANKING} has {count:,} lines, the dataset {len(train):,} training rows ({counts}). "
                "Without row ids line r is the r-th training row, so the counts must agree: ask the "
                f"teacher about every training row, or write the row id of each line to {ROW_IDS}."
            )
        return np.arange(count), train
    if len(rows) != count:
        raise KnowledgeError(
            f"there are {len(rows):,} row ids for the {count:,} lines of {RANKING}. Each line must have "
            f"one: write {ROW_IDS} and {RANKING} from the same loop."
        )
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    if (repeated := ordered[1:][np.diff(ordered) == 0]).size:
        raise KnowledgeError(
            f"row id {repeated[0]} stands on two lines. Each row may have one: remove one of them."
        )
    if (unknown := ordered[~np.isin(ordered, dataset.row_ids)]).size:
        raise KnowledgeError(
            f"row id {unknown[0]} is not in dataset {dataset.name!r}. Row ids are those of rows.parquet, "
            "not positions: make the files for this dataset."
        )
    return order, ordered


def _write_table(values: npt.NDArray[Any], path: Path) -> None:
    frame = pl.DataFrame(values, schema=[f"c{j}" for j in range(values.shape[1])])
    frame.write_csv(path, include_header=False, separator=" ")
