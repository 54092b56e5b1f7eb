"""One table of the paper from a dataset and teachers: plan, tune, train, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recdistill.data import SequenceDataset
from recdistill.experiments.collect import collect
from recdistill.experiments.document import Document
from recdistill.experiments.jobs import train_jobs, tune_jobs
from recdistill.experiments.paper import make_document
from recdistill.experiments.plan import Plan
from recdistill.experiments.runner import Event, run_jobs
from recdistill.runs import exclusive

__all__ = ["describe_plan", "reproduce"]


def reproduce(
    plan: Plan,
    out: Path,
    dataset_folder: Path,
    knowledge: Sequence[Path],
    *,
    workers: int = 1,
    say: Callable[[Event], None] = lambda event: None,
) -> Document:
    """Carry out a plan and return its report, which is also in ``out/<table>/``.

    What is finished in `out` is not done again; runs are shared between tables of one `out`.

    Parameters
    ----------
    plan
        From `make_plan`.
    out
        Output folder.
    dataset_folder, knowledge
        What the plan was made for.
    workers
        Jobs at a time.
    say
        Hears what happens.

    Raises
    ------
    RunError
        Another command works in `out`, or no run of a student has finished.
    """
    with exclusive(out, "reproduce"):
        run_jobs(tune_jobs(plan, out), workers, say)
        run_jobs([job for jobs in train_jobs(plan, out).values() for job in jobs], workers, say)
        dataset = SequenceDataset.load(dataset_folder)
        document = make_document(collect(plan, out, dataset, dataset_folder, knowledge))
        document.save(out / plan.table)
    return document


def describe_plan(plan: Plan, out: Path) -> list[str]:
    """Return what a plan will do, in lines for people."""
    searches = tune_jobs(plan, out)
    ready = sum(job.done for job in searches)
    lines = [
        f"{plan.table}: {len(plan.lines)} lines ({plan.variant} students {', '.join(plan.students) or 'none'}), "
        f"{len(plan.seeds)} seeds each",
        f"tuning: {len(searches)} searches of {plan.budget} trials, {ready} finished",
    ]
    if searches:
        lines += [f"  {study.title}: {'; '.join(map(str, study.space))}" for study in plan.studies]
    if ready == len(searches):
        runs = {job.folder: job for jobs in train_jobs(plan, out).values() for job in jobs}
        lines.append(f"training: {len(runs)} runs, {sum(job.done for job in runs.values())} finished")
    else:
        lines.append(f"training: at most {len(plan.lines) * len(plan.seeds)} runs, after the tuning")
    lines += [f"  {line.student:<10} {line.name}" for line in plan.lines]
    return lines + [f"note: {note}" for note in plan.notes]
