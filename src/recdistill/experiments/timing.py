"""How long teacher and student take for one pass over the test rows (Tables 1 and 6), measured by the same call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recdistill.data import SequenceDataset
from recdistill.errors import RecdistillError
from recdistill.evaluate import Scorer, measure_latency, top_items
from recdistill.export import Recommender
from recdistill.knowledge import load_knowledge
from recdistill.runs import MANIFEST, file_checksum, fingerprint, read_json, write_json
from recdistill.teachers.again import AGAIN, HISTORY_LENGTH, scorer_again
from recdistill.teachers.answer_time import seconds_per_row

__all__ = ["PassTime", "student_time", "teacher_time"]

_K: Final = 20
_REPEATS: Final = 3


@dataclass(frozen=True)
class PassTime:
    """Seconds for the top 20 items of every test row.

    Attributes
    ----------
    rows
        Number of rows.
    wall, cpu
        Wall and CPU seconds with one thread, median of three passes; `cpu` is None where the teacher told its own
        time.
    how
        What was measured, in words; where nothing was, why.
    """

    rows: int
    wall: float | None
    cpu: float | None
    how: str


def student_time(run: Path, dataset: SequenceDataset, *, filter_seen: bool, cache: Path) -> PassTime:
    """Measure the best student of a run folder; a student that was measured before is read from `cache`."""
    key = fingerprint(file_checksum(run / "best" / "model.safetensors"), str(filter_seen))

    def measure() -> PassTime:
        student = Recommender.load(run)
        return _measured(student.scorer(), dataset, student.length, filter_seen, "one thread of this machine")

    return _cached(cache, key, measure)


def teacher_time(
    folder: Path, dataset: SequenceDataset, dataset_folder: Path, *, filter_seen: bool, cache: Path
) -> PassTime:
    """Measure a teacher that can be built from its knowledge folder, or return the time that it told.

    A teacher of transitions (graph, blend) is built again and asked; others kept the time of their answers.
    """
    knowledge = load_knowledge(folder, dataset)
    manifest = knowledge.manifest
    rows = len(dataset.rows("test"))
    each = seconds_per_row(folder)
    if each is not None:
        return PassTime(rows, each * rows, None, "as the teacher took to answer, on its own machine")
    if manifest.get("teacher") not in AGAIN:
        why = f"not measured: a {manifest.get('teacher')} teacher cannot be asked again from its knowledge"
        return PassTime(rows, None, None, why)
    key = fingerprint(file_checksum(folder / MANIFEST), str(filter_seen))

    def measure() -> PassTime:
        try:
            view = dataset.learning_from(*knowledge.learned)
            scorer = scorer_again(manifest, view, dataset_folder / "text")
        except RecdistillError as error:
            return PassTime(rows, None, None, f"not measured: {error}")
        return _measured(scorer, dataset, HISTORY_LENGTH, filter_seen, "one thread of this machine")

    return _cached(cache, key, measure)


def _measured(scorer: Scorer, dataset: SequenceDataset, length: int, filter_seen: bool, how: str) -> PassTime:
    rows = dataset.rows("test")
    found = measure_latency(
        lambda: top_items(
            scorer, dataset, rows, min(_K, dataset.item_count), length=length, filter_seen=filter_seen
        ),
        repeats=_REPEATS,
        warmup=1,
    )
    return PassTime(len(rows), found.p50 / 1e3, found.cpu_p50 / 1e3, how)


def _cached(cache: Path, key: str, measure: Callable[[], PassTime]) -> PassTime:
    path = cache / f"{key[:16]}.json"
    if path.is_file():
        return PassTime(**read_json(path))
    found = measure()
    if found.wall is not None:
        write_json(path, vars(found))
    return found
