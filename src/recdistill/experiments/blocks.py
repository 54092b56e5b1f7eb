"""The tables that every page shares: the comparison with its published columns, how the runs went, where."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recdistill.errors import RunError
from recdistill.evaluate import Evaluation, Report, comparison_report
from recdistill.evaluate.report import Kind, ReportLine
from recdistill.evaluate.tables import Table, show_difference, show_question, show_tests, show_value
from recdistill.experiments.collect import Collected, Outcome
from recdistill.experiments.document import Picture
from recdistill.experiments.published import Pair
from recdistill.experiments.tuning import TUNING_SEED

__all__ = [
    "HR",
    "NDCG",
    "compared",
    "comparison_table",
    "environment_table",
    "picture_of",
    "runs_table",
    "study_notes",
    "teacher_name",
]

HR, NDCG = "hr@20", "ndcg@20"
Extra = tuple[Sequence[str], Callable[[ReportLine], Sequence[str]]]


def compared(collected: Collected, student: str, reference: str, *, teachers: bool = True) -> Report:
    """Compare a student's lines, and the teachers, with one of the lines.

    Raises
    ------
    RunError
        No run of this student has finished.
    """
    groups: dict[str, Sequence[Evaluation]] = {}
    kinds: dict[str, Kind] = {}
    for folder, result in collected.teachers.items() if teachers else ():
        name = teacher_name(collected, folder)
        groups[name], kinds[name] = result.evaluations, "teacher"
    for outcome in collected.of(student):
        if outcome.evaluations:
            groups[outcome.line.name], kinds[outcome.line.name] = outcome.evaluations, outcome.line.kind
    lines = [outcome.line.name for outcome in collected.of(student) if outcome.evaluations]
    if not lines:
        raise RunError(
            f"no run of {student} has finished: {_first_failure(collected, student)} See outcome.json in "
            f"{collected.out / 'runs'}. At least one must train: correct the cause and give the same command again."
        )
    return comparison_report(
        groups,
        reference=reference if reference in lines else lines[0],
        dataset_name=collected.dataset.name,
        ks=(1, 5, 10, 20, 50),
        kinds=kinds,
    )


def teacher_name(collected: Collected, folder: Path) -> str:
    """Return a teacher's name in tables, with its folder where there are several."""
    name = collected.teachers[folder].name
    return name if len(collected.teachers) == 1 else f"{name} [{folder.resolve().name}]"


def _first_failure(collected: Collected, student: str) -> str:
    return next(
        (error for outcome in collected.of(student) for error in outcome.failures), "none was started."
    )


def comparison_table(
    title: str,
    report: Report,
    published: Callable[[ReportLine], Pair | None],
    *,
    note: str = "",
    extra: Extra | None = None,
) -> Table:
    """Return ours with spread, difference and test; the published pair beside it where any line has one.

    Parameters
    ----------
    title, note
        Heading, and what the caption adds.
    report
        From `compared`.
    published
        Line → published HR@20 and NDCG@20, or None.
    extra
        Further columns and a line's cells in them.
    """
    pairs = [published(line) for line in report.lines]
    shown = any(pair is not None for pair in pairs)
    columns = ["model", "HR@20", "NDCG@20", "Δ NDCG@20", "relative", "95% interval", "p (Holm)"]
    columns += list(extra[0]) if extra else []
    columns += (
        ["HR@20 published", "ours − published", "NDCG@20 published", "ours − published"] if shown else []
    )
    lines = []
    for line, pair in zip(report.lines, pairs, strict=True):
        cells = [line.name, show_value(line, HR), show_value(line, NDCG), *show_difference(line.comparison)]
        cells += list(extra[1](line)) if extra else []
        lines.append(cells + (_beside(line, pair) if shown else []))
    tests = show_tests(report, len(report.lines) - 1)
    caption = " ".join(filter(None, [f"{show_question(report)}.", tests, note]))
    return Table(title, columns, lines, [line.kind for line in report.lines], caption)


def _beside(line: ReportLine, pair: Pair | None) -> list[str]:
    if pair is None:
        return [""] * 4
    cells = []
    for metric, value in zip((HR, NDCG), pair, strict=True):
        cells += [f"{value:.4f}", f"{line.metrics[metric] - value:+.4f}"]
    return cells


def picture_of(name: str, title: str, report: Report) -> list[Picture]:
    """Return a comparison as a picture, or nothing where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        report.plot(path)
        return [Picture(name, title, path.read_bytes())]


def runs_table(collected: Collected, student: str) -> Table:
    """Return how a student's runs went: seeds, epochs, time, what tuning found, what failed."""
    columns = [
        "model",
        "seeds",
        "epochs",
        "best epoch",
        "training",
        "NDCG@20 valid",
        "tuned to",
        "trials",
        "tuning",
    ]
    lines = [_run_cells(outcome) for outcome in collected.of(student)]
    caption = (
        "Epochs and training time: mean over seeds, evaluation not counted; best epoch: the one kept, *: among the "
        "last that were allowed, so that the run was still rising. Trials: used (pruned, failed). "
        "Lines that share a search show it each."
    )
    kinds = [outcome.line.kind for outcome in collected.of(student)]
    return Table(f"How the runs of {student} went", columns, lines, kinds, caption)


def _run_cells(outcome: Outcome) -> list[str]:
    seeds = ", ".join(str(one.seed) for one in outcome.evaluations) or "none"
    epochs, seconds, valid = outcome.mean("epochs"), outcome.mean("seconds"), outcome.valid(NDCG)
    kept = [one["best_epoch"] + 1 for one in outcome.summaries if one["best_epoch"] is not None]
    tuned = outcome.tuned
    return [
        outcome.line.name,
        seeds,
        "" if epochs is None else f"{epochs:.0f}",
        f"{sum(kept) / len(kept):.0f}{'*' * outcome.rising}" if kept else "",
        "" if seconds is None else duration(seconds),
        "" if valid is None else f"{valid:.4f}",
        "failed" if tuned is None else show_values({**tuned.values, **outcome.line.fixed}) or "not tuned",
        "" if tuned is None or not tuned.trials else f"{tuned.trials} ({tuned.pruned}, {tuned.failed})",
        "" if tuned is None or not tuned.trials else duration(tuned.seconds),
    ]


def show_values(values: Mapping[str, float]) -> str:
    """Return ``"importance.weight 0.3, train.weight_decay 1e-05"``."""
    return ", ".join(f"{key} {value:.3g}" for key, value in values.items())


def duration(seconds: float) -> str:
    """Return ``"34 s"``, ``"5.2 min"`` or ``"1.5 h"``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def study_notes(collected: Collected) -> list[str]:
    """Return how the numbers came about, what is left out, and what failed."""
    plan = collected.plan
    notes = [collected.match.text, *collected.notes]
    if plan.lines:
        notes.append(
            f"Seeds {', '.join(map(str, plan.seeds))}. Validation picks the epoch and the tuned values; test rows "
            "are read when every run of the table has ended."
        )
    if plan.studies:
        notes.append(_tuning_note(collected))
    elif plan.lines:
        notes.append("Nothing was tuned: λ, weight decay and learning rate are the defaults or as given.")
    if rising := [outcome.line.name for outcome in collected.outcomes if outcome.rising]:
        notes.append(
            f"STILL RISING when their epochs were used up: {', '.join(dict.fromkeys(rising))}. What sets such lines "
            "apart may be how fast they learn alone. Give all of them more: train.epochs=..."
        )
    failures = dict.fromkeys(error for outcome in collected.outcomes for error in outcome.failures)
    notes += [f"FAILED, {error}" for error in failures]
    if len(collected.environments) > 1:
        notes.append(f"The runs were made in {len(collected.environments)} different environments.")
    if find_spec("matplotlib") is None:
        notes.append("No pictures: they come with pip install 'recdistill[report]'.")
    return notes


def _tuning_note(collected: Collected) -> str:
    plan = collected.plan
    spaces = dict.fromkeys(str(parameter) for study in plan.studies for parameter in study.space)
    plain = ", the plain student's among them" if any(line.kind == "student" for line in plan.lines) else ""
    limit = "" if plan.trial_epochs is None else f" of at most {plan.trial_epochs} epochs"
    return (
        f"Tuned on validation {plan.studies[0].config.train.metric.upper()} with seed {TUNING_SEED}, {plan.budget} "
        f"trials{limit} for every search{plain} (TPE, median pruning, first trial: the defaults): "
        f"{'; '.join(spaces)}."
    )


def environment_table(collected: Collected) -> Table:
    """Return what the numbers depend on: versions, machine."""
    from recdistill.environment import environment

    found = collected.environments[0] if collected.environments else environment()
    lines = [[key, str(found[key])] for key in ("python", "platform", "threads", "cuda") if found.get(key)]
    lines += [[name, str(version)] for name, version in found["packages"].items() if version]
    lines.append(["CPUs", str(os.cpu_count())])
    return Table("Environment", ["what", "value"], lines, (), "Of the first run.")


def facts_of(report: Report, collected: Collected, student: str) -> dict[str, Any]:
    """Return a comparison as numbers, with the runs of its student."""
    return {
        "comparison": report.to_dict(),
        "runs": [
            {
                "student": outcome.line.student,
                "name": outcome.line.name,
                "row": outcome.line.row,
                "folders": [run.relative_to(collected.out).as_posix() for run in outcome.runs],
                "tuned": None if outcome.tuned is None else vars(outcome.tuned),
                "fixed": dict(outcome.line.fixed),
                "summaries": [dict(one) for one in outcome.summaries],
                "failures": list(outcome.failures),
            }
            for outcome in collected.of(student)
        ],
    }
