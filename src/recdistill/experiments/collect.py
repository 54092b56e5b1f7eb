"""What the runs of a plan came to: their evaluations on test rows, and how they went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recdistill.config import default_filter_seen
from recdistill.data import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.evaluate import Evaluation
from recdistill.experiments.jobs import TrainJob, read_failure, summary, train_jobs, tune_jobs, tuned_values
from recdistill.experiments.plan import Line, Plan
from recdistill.experiments.published import Match, match_dataset
from recdistill.experiments.results import Result, evaluate_knowledge, evaluate_run
from recdistill.experiments.tuning import Tuned
from recdistill.runs import read_json
from recdistill.train.records import still_rising

__all__ = ["Collected", "Outcome", "collect"]


@dataclass(frozen=True)
class Outcome:
    """One line of a plan after its runs.

    Attributes
    ----------
    line
        The line.
    tuned
        What its search found, or None: it failed.
    runs
        Folders of the finished runs, one a seed.
    evaluations
        Their evaluations on test rows.
    summaries
        Epochs, training seconds and validation metrics of each.
    failures
        Why runs, or the search, failed.
    """

    line: Line
    tuned: Tuned | None
    runs: Sequence[Path]
    evaluations: Sequence[Evaluation]
    summaries: Sequence[Mapping[str, Any]]
    failures: Sequence[str]

    def mean(self, key: str) -> float | None:
        """Return the mean of a number of the summaries over seeds, or None."""
        values = [one[key] for one in self.summaries]
        return float(np.mean(values)) if values else None

    def valid(self, metric: str) -> float | None:
        """Return the mean validation metric of the kept epochs over seeds, or None."""
        values = [one["valid"][metric] for one in self.summaries if metric in one["valid"]]
        return float(np.mean(values)) if values else None

    @property
    def rising(self) -> bool:
        """Whether a seed's best epoch was among the last that it was allowed."""
        allowed = self.line.config.train.epochs
        return any(still_rising(one["best_epoch"], allowed) for one in self.summaries)


@dataclass(frozen=True)
class Collected:
    """Everything that the tables are made from.

    Attributes
    ----------
    plan, out
        The plan and its output folder.
    dataset, dataset_folder
        What was measured on.
    filter_seen
        Whether items of the history were left out of the ranking.
    match
        Whether published figures may stand beside ours.
    outcomes
        The lines.
    teachers
        Knowledge folder → the teacher's evaluation.
    notes
        The plan's notes, and what happened.
    environments
        Of the finished runs, each different one once.
    """

    plan: Plan
    out: Path
    dataset: SequenceDataset
    dataset_folder: Path
    filter_seen: bool
    match: Match
    outcomes: Sequence[Outcome]
    teachers: Mapping[Path, Result]
    notes: Sequence[str]
    environments: Sequence[Mapping[str, Any]]

    def of(self, student: str) -> list[Outcome]:
        """Return the outcomes of one student."""
        return [outcome for outcome in self.outcomes if outcome.line.student == student]


def collect(
    plan: Plan, out: Path, dataset: SequenceDataset, dataset_folder: Path, knowledge: Sequence[Path]
) -> Collected:
    """Evaluate the finished runs on test rows. To be called when all jobs of the plan have ended.

    This is where test rows are looked at first: nothing is chosen after it.
    """
    said = {line.config.filter_seen for line in plan.lines} or {None}
    wanted = next(iter(said))
    filter_seen = default_filter_seen(dataset) if wanted is None else wanted
    jobs = train_jobs(plan, out)
    outcomes = [
        _outcome(plan, line, jobs[f"{line.student}/{line.name}"], out, dataset, filter_seen)
        for line in plan.lines
    ]
    notes = list(plan.notes)
    teachers: dict[Path, Result] = {}
    for folder in knowledge:
        try:
            teachers[folder] = evaluate_knowledge(folder, dataset, "test", filter_seen=filter_seen)
        except KnowledgeError as error:
            notes.append(f"The teacher has no line: {error}")
    folders = [run for outcome in outcomes for run in outcome.runs]
    found = {repr(one): one for one in (read_json(run / "environment.json") for run in folders)}
    return Collected(
        plan=plan,
        out=out,
        dataset=dataset,
        dataset_folder=dataset_folder,
        filter_seen=filter_seen,
        match=match_dataset(dataset, filter_seen=filter_seen),
        outcomes=outcomes,
        teachers=teachers,
        notes=notes,
        environments=list(found.values()),
    )


def _outcome(
    plan: Plan, line: Line, jobs: Sequence[TrainJob], out: Path, dataset: SequenceDataset, filter_seen: bool
) -> Outcome:
    done = [job for job in jobs if job.done]
    results = [evaluate_run(job.folder, dataset, "test", filter_seen=filter_seen) for job in done]
    failures = [f"{job.title}: {error}" for job in jobs if (error := read_failure(job)) is not None]
    if not jobs:
        search = next(job for job in tune_jobs(plan, out) if job.study == line.study)
        failures.append(f"{search.title}: {read_failure(search) or 'not finished'}")
    return Outcome(
        line=line,
        tuned=tuned_values(plan, line, out),
        runs=[job.folder for job in done],
        evaluations=[one for result in results for one in result.evaluations],
        summaries=[summary(job.folder) for job in done],
        failures=failures,
    )
