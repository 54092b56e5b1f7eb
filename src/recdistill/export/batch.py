"""Recommendations for a file of histories, however many: read, answered and written shard by shard.

A shard is a range of rows. Each is written to ``OUTPUT.parts/`` under its number, whole or not at all; when the last
one is there, they are joined into the output, which appears at once. A job that was killed goes on with the shards that
are missing. Memory is that of one shard and of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import polars as pl

from recdistill.cluster import ENGINES, Cluster
from recdistill.errors import ConfigError, DataError, RecdistillError, RunError, unknown_name
from recdistill.export.answering import UNKNOWN, Answering, Options
from recdistill.export.recommender import Recommender
from recdistill.runs import MANIFEST, atomic_file, fingerprint, read_manifest, remove_folder, write_manifest

_FOOTER: Final = 1 << 16
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """What the workers of one batch job need to know; plain values, so that it can be sent anywhere.

    Attributes
    ----------
    folder, source, parts
        The recommender, the histories, and where shards are written; on a cluster, paths that all machines see.
    rows
        Histories.
    shard_rows
        Histories a shard.
    options
        How to answer.
    """

    folder: str
    source: str
    parts: str
    rows: int
    shard_rows: int
    options: Options

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_rows)

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return Path(self.parts) / f"{number:08d}.parquet"

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not written yet."""
        return [number for number in range(self.shards) if not self.path(number).is_file()]


@dataclass(frozen=True)
class BatchReport:
    """What a batch job did: histories in all, those answered by this call, and how many shards were there before."""

    rows: int
    answered: int
    resumed_shards: int


class Worker:
    """Answers shards of a job with one loaded recommender."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.answering = Answering(Recommender.load(job.folder), job.options)

    def run(self, number: int) -> int:
        """Write one shard and return its number of histories."""
        start = number * self.job.shard_rows
        frame = pl.scan_parquet(self.job.source).slice(start, self.job.shard_rows).collect()
        answer = self.answering.answer(frame, start)
        with atomic_file(self.job.path(number)) as temporary:
            answer.write_parquet(temporary)
        return frame.height


def recommend_file(
    folder: Path | str,
    source: Path | str,
    output: Path | str,
    *,
    k: int = 20,
    exclude_seen: bool = False,
    unknown: str = "refuse",
    batch_size: int = 256,
    shard_rows: int = 1 << 16,
    engine: str = "local",
    workers: int = 2,
    address: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    on_start: Callable[[Job, int], None] | None = None,
) -> BatchReport:
    """Answer every history of a parquet file.

    Parameters
    ----------
    folder
        A run, recommender or exported folder.
    source
        Parquet with the list column ``history``: raw ids or titles, oldest first. Its other columns are kept.
    output
        Parquet to write: the other columns, ``items`` (raw ids, best first) and ``scores``, in the order of `source`.
    k
        Items a history, 1..I; fewer where fewer are left.
    exclude_seen
        Leave out the items of the history.
    unknown
        ``refuse`` histories with an item that the catalogue does not have, or without any item, or ``skip`` the
        item; a history of which nothing is left gets an empty list.
    batch_size
        Histories that the student reads at once.
    shard_rows
        Histories a shard.
    engine
        ``local``, or ``ray``: the shards go to the workers of a Ray cluster.
    workers, address
        Of ``ray``: how many workers, and which cluster; None: the one of the environment, or a local one.
    overwrite
        Replace the output, and forget what an earlier job of another kind left.
    progress
        Called with the histories of each finished shard.
    on_start
        Called once with the job and the number of shards that are there already.

    Raises
    ------
    ConfigError
        An option is out of range.
    DataError
        The file has no list column ``history``, or a history cannot be read.
    RunError
        `output` exists, or holds shards of another job.
    MissingExtraError
        `engine` is ``ray``, which is not installed.
    """
    source, output = Path(source), Path(output)
    _check(k, batch_size, shard_rows, workers, engine, unknown)
    rows = _count(source)
    options = Options(k, exclude_seen, unknown, batch_size)
    parts = output.with_name(f"{output.name}.parts")
    job = Job(str(folder), str(source), str(parts), rows, shard_rows, options)
    _open_parts(job, output, overwrite)
    missing = job.missing()
    if on_start is not None:
        on_start(job, job.shards - len(missing))
    report = progress or (lambda _: None)
    try:
        if engine == "ray":
            answered = 0
            for _, done in Cluster(workers, address).run(Worker, [job], missing, job.source):
                answered += done
                report(done)
        else:
            answered = _run_here(job, missing, report)
    except RecdistillError:
        if (
            len(job.missing()) == job.shards
        ):  # it never began: leave nothing in the way of a corrected command
            remove_folder(parts)
        raise
    _join(job, output)
    return BatchReport(rows, answered, job.shards - len(missing))


def _run_here(job: Job, missing: list[int], progress: Progress) -> int:
    worker = Worker(job) if missing else None
    answered = 0
    for number in missing:
        rows = worker.run(number) if worker else 0
        answered += rows
        progress(rows)
    return answered


def _check(k: int, batch_size: int, shard_rows: int, workers: int, engine: str, unknown: str) -> None:
    numbers = {"k": k, "batch size": batch_size, "shard rows": shard_rows, "workers": workers}
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}. Allowed: from 1. See recdistill recommend --help.")
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if unknown not in UNKNOWN:
        raise unknown_name("value of --unknown", unknown, UNKNOWN)


def _count(source: Path) -> int:
    """Return the number of histories after a look at the file's schema."""
    if not source.is_file():
        raise DataError(f"{source} does not exist. Allowed: a parquet file with a list column 'history'.")
    try:
        schema = pl.read_parquet_schema(source)
        rows = int(pl.scan_parquet(source).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{source} cannot be read as parquet ({error}). Write it anew.") from error
    kind = schema.get("history")
    inner = kind.inner if isinstance(kind, pl.List) else None
    if inner is None or not (inner == pl.String or inner.is_integer()):
        raise DataError(
            f"{source} has the columns {dict(schema)}. Needed: 'history', a list of raw ids or titles (text or whole "
            "numbers), oldest first. From a log: frame.sort('timestamp').group_by('user_id').agg(history='item_id')."
        )
    if taken := {"items", "scores"} & set(schema):
        raise DataError(f"{source} has a column {sorted(taken)[0]!r}, which the output adds. Rename it.")
    return rows


def _open_parts(job: Job, output: Path, overwrite: bool) -> None:
    parts, identity = Path(job.parts), _identity(job)
    if parts.exists() and not (parts / MANIFEST).is_file() and any(parts.glob("*.parquet")):
        raise RunError(
            f"{parts} was not written by recdistill (no {MANIFEST}): move it away, or choose another --output."
        )
    if (parts / MANIFEST).is_file():
        if read_manifest(parts, "recommend-parts")["identity"] == identity:
            return
        if not overwrite:
            raise RunError(
                f"{parts} holds shards of another job (other input, recommender or options). Give the earlier command "
                "again to finish it, choose another --output, or pass --overwrite to drop them."
            )
        remove_folder(parts)
    if output.exists() and not overwrite:
        raise RunError(
            f"{output} already exists. Choose another --output, or pass --overwrite to replace it."
        )
    parts.mkdir(parents=True, exist_ok=True)
    write_manifest(parts, "recommend-parts", {"identity": identity, "job": asdict(job)})


def _identity(job: Job) -> str:
    """Return what shards must share: the input by its size and footer, the model by its numbers, the options."""
    with Path(job.source).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _FOOTER))
        footer = file.read()
    recommender = Recommender.load(job.folder)
    numbers = [
        value.detach().cpu().contiguous().numpy().data for value in recommender.model.state_dict().values()
    ]
    ids = "\n".join(recommender.catalogue.raw_ids)
    kept = {**asdict(job.options), "batch_size": None}  # it changes no answer
    return fingerprint(
        str(size), footer, ids, str(job.shard_rows), repr(kept), *(memoryview(n).cast("B") for n in numbers)
    )


def _join(job: Job, output: Path) -> None:
    """Join the shards and remove them; a kill in between leaves shards that the next call joins again."""
    paths = [job.path(number) for number in range(job.shards)]
    with atomic_file(output) as temporary:
        if paths:
            pl.scan_parquet(paths).sink_parquet(temporary)
        else:
            worker = Worker(job)
            worker.answering.answer(pl.read_parquet(job.source), 0).write_parquet(temporary)
    remove_folder(Path(job.parts))
