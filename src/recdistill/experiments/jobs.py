"""The two kinds of work in a plan: a search on validation rows, and a run with one seed.

A job knows whether it is done by looking at its folder, so a plan that was killed at any point goes on where it
was: finished jobs are passed over, a run that was cut goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from recdistill.config import RunConfig, run, write_config
from recdistill.data import SequenceDataset
from recdistill.experiments.plan import Line, Plan, Study
from recdistill.experiments.tuning import Tuned, read_tuned, tune_config
from recdistill.runs import MANIFEST, read_json, write_json
from recdistill.train.records import best_epoch, epoch_records, kept_metrics

__all__ = ["Job", "TrainJob", "TuneJob", "train_jobs", "tune_jobs", "tuned_values"]

#: What a job leaves in its folder when it ends.
OUTCOME: Final = "outcome.json"


class Job(Protocol):
    """Work that a worker process can do, or do again, in its own folder."""

    @property
    def title(self) -> str:
        """For progress lines."""

    @property
    def folder(self) -> Path:
        """Where it works."""

    @property
    def done(self) -> bool:
        """Whether the result is there."""

    def work(self) -> None:
        """Do it, from where it was cut."""


@dataclass(frozen=True)
class TuneJob:
    """One search on validation rows."""

    title: str
    folder: Path
    study: Study
    budget: int
    epochs: int | None

    @property
    def done(self) -> bool:
        """Whether the search has used up its budget."""
        return self.result is not None

    @property
    def result(self) -> Tuned | None:
        """What it found, or None."""
        return read_tuned(self.folder, self.budget)

    def work(self) -> None:
        """Search."""
        data = _dataset(self.study.config.dataset)
        tune_config(
            self.study.config,
            self.study.space,
            self.folder,
            budget=self.budget,
            epochs=self.epochs,
            dataset=data,
        )


@dataclass(frozen=True)
class TrainJob:
    """One final run with one seed."""

    title: str
    folder: Path
    config: RunConfig
    identity: str

    @property
    def done(self) -> bool:
        """Whether a run of this identity has finished here."""
        outcome = self.folder / OUTCOME
        if not outcome.is_file() or not (self.folder / "best" / MANIFEST).is_file():
            return False
        said = read_json(outcome)
        return bool(said["status"] == "done" and said["identity"] == self.identity)

    def work(self) -> None:
        """Train; a run that was cut goes on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(self.config, self.folder / "config.yaml")
        run(self.config, self.folder, dataset=_dataset(self.config.dataset))
        write_json(
            self.folder / OUTCOME, {"status": "done", "identity": self.identity, **summary(self.folder)}
        )


def summary(folder: Path) -> dict[str, Any]:
    """Return epochs, training seconds and the best epoch of a run, and the validation metrics of what it kept."""
    records = epoch_records(folder)
    return {
        "epochs": len(records),
        "seconds": round(sum(float(record["seconds"]) for record in records), 3),
        "best_epoch": best_epoch(folder),
        "valid": kept_metrics(folder),
    }


def record_failure(job: Job, error: str, detail: str = "") -> None:
    """Leave in the job's folder that it failed, and why."""
    write_json(job.folder / OUTCOME, {"status": "failed", "error": error, "detail": detail})


def read_failure(job: Job) -> str | None:
    """Return why a job failed, or None: it did not, or was not tried."""
    path = job.folder / OUTCOME
    if job.done or not path.is_file():
        return None
    said = read_json(path)
    return str(said["error"]) if said["status"] == "failed" else None


def tune_jobs(plan: Plan, out: Path) -> list[TuneJob]:
    """Return the searches of a plan."""
    return [
        TuneJob(
            f"tune {study.title}", out / _tuning_folder(plan, study), study, plan.budget, plan.trial_epochs
        )
        for study in plan.studies
    ]


def _tuning_folder(plan: Plan, study: Study) -> str:
    return study.folder if plan.trial_epochs is None else f"{study.folder}-{plan.trial_epochs}-epochs"


def tuned_values(plan: Plan, line: Line, out: Path) -> Tuned | None:
    """Return what was found for a line: nothing changed where it is not tuned, None where the search failed."""
    if line.study is None:
        return Tuned()
    return read_tuned(out / _tuning_folder(plan, line.study), plan.budget)


def train_jobs(plan: Plan, out: Path) -> dict[str, list[TrainJob]]:
    """Return the final runs of each line by ``student/name``; none where its search failed."""
    jobs: dict[str, list[TrainJob]] = {}
    for line in plan.lines:
        tuned = tuned_values(plan, line, out)
        jobs[f"{line.student}/{line.name}"] = [] if tuned is None else _seeds(plan, line, tuned.values, out)
    return jobs


def _seeds(plan: Plan, line: Line, values: Mapping[str, float], out: Path) -> list[TrainJob]:
    config = line.tuned(values)
    identity, folder = plan.identity(config), out / plan.folder(config, line.student)
    return [
        TrainJob(
            f"{line.student} ({plan.variant}), {line.name}, seed {seed}",
            folder / f"seed-{seed}",
            config.model_copy(update={"seed": seed}),
            identity,
        )
        for seed in plan.seeds
    ]


@lru_cache(maxsize=1)
def _dataset(folder: str) -> SequenceDataset:
    """Load a dataset once a process: the jobs of a plan share it."""
    return SequenceDataset.load(folder)
