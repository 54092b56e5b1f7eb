"""The preset `best`: beside the tuned student, teachers and free baselines, by slices, and what each lever brings."""

from __future__ import annotations

from typing import Any

from recdistill.evaluate import Report
from recdistill.evaluate.tables import Table, show_difference, show_question, show_tests, show_value, tables
from recdistill.experiments.blocks import (
    NDCG,
    compared,
    duration,
    facts_of,
    picture_of,
    runs_table,
    teacher_name,
)
from recdistill.experiments.collect import Collected
from recdistill.experiments.document import Picture
from recdistill.experiments.naming import PLAIN
from recdistill.experiments.plots import curves_picture, slices_picture
from recdistill.experiments.report import baseline_results, compare_results
from recdistill.experiments.results import Result
from recdistill.experiments.run_report import RunParts, learning_curves
from recdistill.runs import MANIFEST, read_json

__all__ = ["best_page"]

_WHOLE = "best"
#: Table → what was done to the preset, and how to read it.
_CHANGES = {
    "best": ("one lever left out", "A loss without a lever is what it brings."),
    "levers": ("another lever in the place of one", "A gain would be a reason to change the preset."),
}
_METRICS = ("hr@10", "ndcg@10", "hr@20", "ndcg@20")


def best_page(collected: Collected) -> tuple[list[Any], list[Picture], dict[str, Any]]:
    """Return for each student the comparison with slices, the levers, how the runs went; then the teachers' cost."""
    found: list[Any] = []
    pictures: list[Picture] = []
    facts: dict[str, Any] = {}
    for student in collected.plan.students:
        levers = compared(collected, student, _whole(collected, student), teachers=False)
        against = _against_all(collected, student)
        found += [
            *tables(against),
            *_picked(collected, student),
            _levers(student, collected.plan.table, levers),
        ]
        found.append(runs_table(collected, student))
        title = f"{student} ({collected.plan.variant}): NDCG@20 and its difference from {against.reference}"
        pictures += [*picture_of(student, title, against), *slices_picture(against)]
        pictures += curves_picture(_curves(collected, student), NDCG)
        facts[student] = facts_of(against, collected, student) | {"levers": levers.to_dict()}
    return [*found, *_teachers(collected)], pictures, {"students": facts}


def _whole(collected: Collected, student: str) -> str:
    """Return the name of the first line with nothing left out; if none has finished, `compared` takes another."""
    return next(
        (o.line.name for o in collected.of(student) if o.line.row == _WHOLE and o.evaluations), _WHOLE
    )


def _against_all(collected: Collected, student: str) -> Report:
    """Compare students, teachers and free baselines with the tuned student that had no teacher."""
    finished = [one for one in collected.of(student) if one.evaluations]
    shown = [one for one in finished if one.line.row in (PLAIN, _WHOLE)] or finished
    results = [Result(one.line.name, one.line.kind, one.evaluations) for one in shown]
    results += [
        Result(teacher_name(collected, folder), "teacher", one.evaluations)
        for folder, one in collected.teachers.items()
    ]
    data, folder = collected.dataset, collected.dataset_folder
    results += baseline_results(data, folder, "test", filter_seen=collected.filter_seen)
    return compare_results(results, data, reference=shown[0].line.name)


def _levers(student: str, table: str, report: Report) -> Table:
    columns = [
        "model",
        *(name.upper() for name in _METRICS),
        "Δ NDCG@20",
        "relative",
        "95% interval",
        "p (Holm)",
    ]
    lines = [
        [line.name, *(show_value(line, name) for name in _METRICS), *show_difference(line.comparison)]
        for line in report.lines
    ]
    title, note = _CHANGES[table]
    caption = f"{show_question(report)}. {show_tests(report, len(lines) - 1)} {note}"
    return Table(f"{student}: {title}", columns, lines, [line.kind for line in report.lines], caption)


def _picked(collected: Collected, student: str) -> list[Table]:
    """Return the plain student and each teacher's as validation sees them: it alone may say which to take."""
    named = {o.line.name: o.valid(NDCG) for o in collected.of(student) if o.line.row in (PLAIN, _WHOLE)}
    told = {name: value for name, value in named.items() if value is not None}
    if len(told) < 2:
        return []
    best = max(told, key=lambda name: told[name])
    lines = [[name, f"{value:.4f}", "picked" if name == best else ""] for name, value in told.items()]
    caption = (
        "Mean over seeds, of the students that were kept. The test rows have no say in it: a teacher that is behind "
        "the plain student can hold its own student back."
    )
    return [Table(f"{student}: what validation picks", ["model", "NDCG@20 valid", ""], lines, (), caption)]


def _curves(collected: Collected, student: str) -> list[Any]:
    return [
        curve
        for one in collected.of(student)
        for run in one.runs
        for curve in learning_curves(RunParts(one.line.name, run))
    ]


def _teachers(collected: Collected) -> list[Table]:
    """Return what the teachers cost, as their manifests tell."""
    lines = []
    for folder in collected.teachers:
        manifest = read_json(folder / MANIFEST)
        seconds = manifest.get("cpu_seconds")
        cost = "not recorded" if seconds is None else duration(float(seconds))
        lines.append([teacher_name(collected, folder), f"{int(manifest['rows']):,}", cost])
    caption = (
        "CPU time of the process that wrote the folder; what an interrupted one did before is not in it."
    )
    return [Table("Teachers", ["teacher", "rows", "CPU time"], lines, (), caption)] if lines else []
