"""Tables 1 to 8 and Figure 2 of "Distillation Matters" for any dataset and teacher: from finished runs to a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from recdistill.evaluate import Report
from recdistill.evaluate.report import ReportLine
from recdistill.experiments.audits import strength_page
from recdistill.experiments.best import best_page
from recdistill.experiments.blocks import (
    HR,
    NDCG,
    compared,
    comparison_table,
    duration,
    environment_table,
    facts_of,
    picture_of,
    runs_table,
    study_notes,
    teacher_name,
)
from recdistill.experiments.collect import Collected, Outcome
from recdistill.experiments.document import Document, Picture
from recdistill.experiments.gains import gain_table
from recdistill.experiments.naming import PLAIN
from recdistill.experiments.published import TEACHER, TEACHER_SECONDS, Pair
from recdistill.experiments.statistics_page import statistics_page
from recdistill.experiments.sweep import sweep_page
from recdistill.experiments.timing import PassTime, student_time, teacher_time

__all__ = ["TITLES", "make_document"]

TITLES: Final = {
    "table1": "Table 1: teacher and student, accuracy and inference time",
    "table2": "Table 2: how often the teacher beats the student",
    "table3": "Table 3: what the lists of teacher and student share",
    "table4": "Table 4: the data",
    "table5": "Table 5: strategies",
    "table6": "Table 6: teacher and distilled student, accuracy and inference time",
    "table7": "Table 7: ablation of the ranking weights",
    "table8": "Table 8: ablation of the embedding part",
    "figure2": "Figure 2: sensitivity",
    "best": "The preset best, and what each of its levers brings",
    "levers": "The preset best, and other levers in the place of its own",
}
Page = tuple[list[Any], list[Picture], dict[str, Any]]


def make_document(collected: Collected) -> Document:
    """Return the page of the plan's table.

    Raises
    ------
    RunError
        No run of a student has finished.
    """
    plan = collected.plan
    tables, pictures, facts = _PAGES[plan.table](collected)
    notes = study_notes(collected)
    environment = environment_table(collected)
    return Document(
        title=f"{TITLES[plan.table]}, {collected.dataset.name}",
        notes=notes,
        tables=[*tables, environment],
        pictures=pictures,
        facts={
            "table": plan.table,
            "variant": plan.variant,
            "seeds": list(plan.seeds),
            "budget": plan.budget,
            "published": collected.match.key,
            "environments": [dict(one) for one in collected.environments],
            **facts,
        },
    )


def _pages_by_student(
    collected: Collected, page: Callable[[Collected, str], Page], after: Callable[[Collected], Page]
) -> Page:
    tables: list[Any] = []
    pictures: list[Picture] = []
    facts: dict[str, Any] = {}
    for student in collected.plan.students:
        own, shown, said = page(collected, student)
        tables, pictures, facts = [*tables, *own], [*pictures, *shown], {**facts, student: said}
    more, shown, said = after(collected)
    return [*tables, *more], [*pictures, *shown], {"students": facts, **said}


def _strategies(collected: Collected) -> Page:
    def after(collected: Collected) -> Page:
        return gain_table(collected)

    return _pages_by_student(collected, _strategy_page, after)


def _strategy_page(collected: Collected, student: str) -> Page:
    report = compared(collected, student, PLAIN)
    return _comparison(collected, student, report, "table5")


def _ablation(collected: Collected) -> Page:
    return _pages_by_student(collected, _ablation_page, _nothing)


def _ablation_page(collected: Collected, student: str) -> Page:
    whole = collected.of(student)[-1].line.name  # the paper's last row: nothing left out
    report = compared(collected, student, whole, teachers=False)
    note = f"The reference is {report.reference}: what does each part bring?"
    return _comparison(collected, student, report, collected.plan.table, note=note)


def _nothing(collected: Collected) -> Page:
    return [], [], {}


def _comparison(collected: Collected, student: str, report: Report, table: str, note: str = "") -> Page:
    """Return the shared page of a student: the comparison, the picture, how the runs went."""
    title = f"{student} ({collected.plan.variant})"
    main = comparison_table(
        title,
        report,
        _published(collected, student, table),
        note=" ".join(filter(None, [note, _published_note(collected)])),
    )
    pictures = picture_of(student, f"{title}: NDCG@20 and its difference from {report.reference}", report)
    return [main, runs_table(collected, student)], pictures, facts_of(report, collected, student)


def _published_note(collected: Collected) -> str:
    if collected.match.key is None:
        return ""
    text = collected.match.text
    if collected.plan.variant != "paper":
        text += f" The published students are the paper's, ours are {collected.plan.variant}."
    return text


def _published(collected: Collected, student: str, table: str) -> Callable[[ReportLine], Pair | None]:
    """Return what finds the published pair of a line of a comparison."""
    rows = {outcome.line.name: outcome.line.row for outcome in collected.of(student)}

    def find(line: ReportLine) -> Pair | None:
        if line.kind == "teacher":
            return None if collected.match.key is None else TEACHER[collected.match.key]
        return collected.match.pair(table, student, rows[line.name])

    return find


def _timed(collected: Collected) -> Page:
    """Tables 1 and 6: accuracy, and the seconds of one pass over the test rows."""
    return _pages_by_student(collected, _timed_page, _nothing)


def _timed_page(collected: Collected, student: str) -> Page:
    report = compared(collected, student, PLAIN)
    times = _times(collected, collected.of(student))
    title = f"{student} ({collected.plan.variant})"
    columns = ["inference", "CPU", "published"] if collected.match.key else ["inference", "CPU"]

    def cells(line: ReportLine) -> list[str]:
        found = times[line.name]
        wall = "not measured" if found.wall is None else duration(found.wall)
        shown = [wall, "" if found.cpu is None else duration(found.cpu)]
        if collected.match.key:
            teacher, fast = TEACHER_SECONDS[collected.match.key]
            shown.append(duration(teacher if line.kind == "teacher" else fast))
        return shown

    rows = next(iter(times.values())).rows
    note = (
        f"Inference: top 20 of all {rows:,} test rows, wall and CPU seconds with one thread, median of three passes. "
        f"{_reservations(times)}{_against_teacher(report, times)}"
    )
    main = comparison_table(
        title,
        report,
        _published(collected, student, "table5"),
        note=f"{note} {_published_note(collected)}{_published_machine(collected)}".strip(),
        extra=(columns, cells),
    )
    pictures = picture_of(student, f"{title}: NDCG@20 and its difference from {report.reference}", report)
    facts = facts_of(report, collected, student) | {
        "inference": {name: vars(one) for name, one in times.items()}
    }
    return [main, runs_table(collected, student)], pictures, facts


def _reservations(times: Mapping[str, PassTime]) -> str:
    """Say which times were not measured here, and why."""
    return "".join(
        f"{name}: {one.how}. " for name, one in times.items() if one.wall is None or one.cpu is None
    )


def _published_machine(collected: Collected) -> str:
    return " Published seconds: 4 A800 GPUs." if collected.match.key else ""


def _times(collected: Collected, outcomes: Sequence[Outcome]) -> dict[str, PassTime]:
    cache = collected.out / "latency"
    times = {}
    for folder in collected.teachers:
        times[teacher_name(collected, folder)] = teacher_time(
            folder,
            collected.dataset,
            collected.dataset_folder,
            filter_seen=collected.filter_seen,
            cache=cache,
        )
    for outcome in outcomes:
        if outcome.runs:
            times[outcome.line.name] = student_time(
                outcome.runs[0], collected.dataset, filter_seen=collected.filter_seen, cache=cache
            )
    return times


def _against_teacher(report: Report, times: dict[str, PassTime]) -> str:
    """Say what the best student gains over each teacher, in accuracy and time."""
    students = [line for line in report.lines if line.kind != "teacher"]
    best = max(students, key=lambda line: line.metrics[NDCG])
    sentences = []
    for teacher in (line for line in report.lines if line.kind == "teacher"):
        gains = ", ".join(
            f"{metric.upper()} {best.metrics[metric] / teacher.metrics[metric] - 1:+.1%}"
            for metric in (HR, NDCG)
            if teacher.metrics[metric]
        )
        slow, fast = times[teacher.name].wall, times[best.name].wall
        speed = f", {slow / fast:.3g} times as fast" if slow and fast else ""
        sentences.append(f"{best.name} against {teacher.name}: {gains}{speed}.")
    return " ".join(sentences)


_PAGES: Final[dict[str, Callable[[Collected], Page]]] = {
    "table1": _timed,
    "table2": strength_page,
    "table3": strength_page,
    "table4": statistics_page,
    "table5": _strategies,
    "table6": _timed,
    "table7": _ablation,
    "table8": _ablation,
    "figure2": sweep_page,
    "best": best_page,
    "levers": best_page,
}
