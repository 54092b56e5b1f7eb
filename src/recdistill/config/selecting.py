"""Which training rows learn from the teacher: from a config's ``select`` to row ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from recdistill.config.schema import RunConfig, SelectConfig
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.evaluate import session_difficulty, target_ranks
from recdistill.export import Recommender
from recdistill.knowledge import Knowledge, read_row_ids
from recdistill.knowledge.selection import all_rows, budget_rows, confident, hard_band, random_rows
from recdistill.runs import require_fingerprint
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]


def select_rows(
    select: SelectConfig, dataset: SequenceDataset, knowledge: Knowledge | None, rows: Ints
) -> Ints:
    """Return the ids of the rows that are worth a teacher.

    Parameters
    ----------
    select
        How to choose.
    dataset
        The dataset of the rows.
    knowledge
        What a teacher said already: needed for ``confidence``, and for ``band`` it tells which rows the teacher
        ranks better than the student. None: no teacher was asked yet.
    rows
        ``(N,)`` positions of the rows to choose from.

    Raises
    ------
    ConfigError
        What the way to choose needs is not named.
    KnowledgeError
        The knowledge lacks what it needs.
    FingerprintError
        The run was trained on another dataset.
    """
    ids = dataset.row_ids[rows]
    if select.how == "random":
        return random_rows(ids, select.share, seed=select.seed)
    if select.how == "confidence":
        return confident(ids, _told(knowledge, ids, "target_distance"), select.share)
    if select.how == "file":
        return _from_file(select, dataset, ids)
    if select.how == "all":
        return all_rows(ids)
    student = _student(select, dataset)
    if select.how == "budget":
        hard = session_difficulty(student.scorer(), dataset, rows, length=student.length)
        return budget_rows(
            ids, hard, select.count, effective=select.effective, similar=select.similar, seed=select.seed
        )
    ranks = target_ranks(student.scorer(), dataset, rows, length=student.length).kept
    known = knowledge is not None and knowledge.target_rank is not None
    teacher = _told(knowledge, ids, "target_rank") if known else None
    return hard_band(ids, ranks, share=select.share, centre=select.centre, teacher_ranks=teacher)


def select_knowledge(config: RunConfig, dataset: SequenceDataset, knowledge: Knowledge) -> Knowledge:
    """Return the knowledge of the selected training rows alone.

    Raises
    ------
    KnowledgeError
        No row is left, or with ``train.coverage=error`` a selected row has no knowledge.
    """
    rows = dataset.rows("train", prefixes=config.train.supervision == "all")
    chosen = select_rows(config.select, dataset, knowledge, rows)
    if not len(chosen):
        raise KnowledgeError(
            f"select.how={config.select.how} leaves none of {len(rows):,} training rows to learn from the teacher. "
            "Choose another share or file. See them with: recdistill knowledge select"
        )
    if config.train.coverage == "error":
        knowledge.select("error", chosen)
    return knowledge.restricted(chosen)


def _student(select: SelectConfig, dataset: SequenceDataset) -> Recommender:
    if select.run is None:
        raise ConfigError(
            f"select.how={select.how} needs a student without a teacher, which tells how hard a row is. "
            "Allowed: a run folder. Train one with recdistill distill --strategy none --out r/, then select.run=r/"
        )
    student = Recommender.load(Path(select.run))
    require_fingerprint(student.dataset_fingerprint, dataset.fingerprint, select.run)
    return student


def _from_file(select: SelectConfig, dataset: SequenceDataset, ids: Ints) -> Ints:
    if select.file is None:
        raise ConfigError("select.how=file needs a file of row ids. Name it with: select.file=rows.parquet")
    wanted = read_row_ids(select.file)
    dataset.positions_of(wanted)  # every id exists
    return np.intersect1d(ids, wanted)


def _told(knowledge: Knowledge | None, ids: Ints, field: str) -> npt.NDArray[np.float64]:
    """Return ``(N,)`` a field of the rows; NaN (for ranks -1) where the teacher was not asked."""
    values = None if knowledge is None else getattr(knowledge, field)
    if knowledge is None or values is None:
        raise KnowledgeError(
            f"this way to select rows needs the field {field!r} of a teacher's knowledge. Pass --knowledge k/ that "
            "has it. See what a folder holds with: recdistill knowledge show k/"
        )
    told = np.full(len(ids), PAD if field == "target_rank" else np.nan)
    covered = knowledge.covers(ids)
    told[covered] = values[np.searchsorted(knowledge.row_ids, ids[covered])]
    return told
