"""Figure 2: one hyperparameter of DLLM2Rec at a time, everything else as it was tuned."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from recdistill.evaluate import Report
from recdistill.evaluate.tables import Table, show_difference, show_question, show_tests, show_value
from recdistill.experiments.blocks import HR, NDCG, compared, facts_of, runs_table
from recdistill.experiments.collect import Collected, Outcome
from recdistill.experiments.document import Picture
from recdistill.experiments.table_lines import SWEEP

__all__ = ["sweep_page"]

_TEST, _VALID, _GRID = "#009E73", "#8A8F98", "#E5E7EB"
_SETTINGS: Final[Any] = {"font.size": 10, "font.family": "DejaVu Sans", "text.parse_math": False}


def sweep_page(collected: Collected) -> tuple[list[Any], list[Picture], dict[str, Any]]:
    """Return a table and a picture for each student and teacher.

    Raises
    ------
    RunError
        No run of a student has finished.
    """
    tables: list[Any] = []
    pictures: list[Picture] = []
    facts: dict[str, Any] = {}
    for student in collected.plan.students:
        for teacher in dict.fromkeys(outcome.line.teacher for outcome in collected.of(student)):
            outcomes = [o for o in collected.of(student) if o.line.teacher == teacher]
            report = compared(collected, student, outcomes[0].line.name, teachers=False)
            name = f"{student} [{teacher}]" if teacher else student
            tables.append(_table(collected, name, report, outcomes))
            pictures += _picture(name, outcomes)
            facts[name] = facts_of(report, collected, student)
        tables.append(runs_table(collected, student))
    return tables, pictures, {"students": facts}


def _table(collected: Collected, name: str, report: Report, outcomes: list[Outcome]) -> Table:
    found = {line.name: line for line in report.lines}
    columns = [
        "value",
        "HR@20",
        "NDCG@20",
        "NDCG@20 valid",
        "Δ NDCG@20",
        "relative",
        "95% interval",
        "p (Holm)",
    ]
    lines = []
    for outcome in outcomes:
        if outcome.line.name not in found:
            continue
        line = found[outcome.line.name]
        valid = outcome.valid(NDCG)
        lines.append(
            [
                line.name,
                show_value(line, HR),
                show_value(line, NDCG),
                "" if valid is None else f"{valid:.4f}",
                *show_difference(line.comparison),
            ]
        )
    caption = (
        f"{show_question(report)}. Every line changes one value of {report.reference}. "
        f"{show_tests(report, len(report.lines) - 1)} The paper's figure prints no numbers."
    )
    title = f"{name} ({collected.plan.variant})"
    return Table(title, columns, lines, ["distilled"] * len(lines), caption)


def _picture(name: str, outcomes: list[Outcome]) -> list[Picture]:
    """Draw NDCG@20 on test (mean and standard deviation over seeds) and valid over each hyperparameter."""
    if find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(11, 3.2), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(SWEEP), sharey=True)
        for axes, (key, (symbol, _)) in zip(panels, SWEEP.items(), strict=True):
            _panel(axes, symbol, [o for o in outcomes if key in o.line.fixed and o.evaluations], key)
        panels[0].set_ylabel("NDCG@20")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
        file = io.BytesIO()
        figure.savefig(file, dpi=160, format="png")
    title = f"{name}: NDCG@20 over λ_d, γ_p, γ_c and γ_o"
    return [Picture(f"sensitivity-{name.replace(' ', '-').strip('[]')}", title, file.getvalue())]


def _panel(axes: Any, symbol: str, outcomes: list[Outcome], key: str) -> None:
    points = sorted(outcomes, key=lambda outcome: outcome.line.fixed[key])
    x = [outcome.line.fixed[key] for outcome in points]
    tests = [[one.per_row(NDCG).mean() for one in outcome.evaluations] for outcome in points]
    spread = [np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in tests]
    axes.errorbar(
        x, [np.mean(values) for values in tests], spread, color=_TEST, marker="o", capsize=3, label="test"
    )
    valid = [outcome.valid(NDCG) or np.nan for outcome in points]
    axes.plot(x, valid, color=_VALID, linestyle="--", marker=".", label="valid")
    axes.set_xlabel(symbol)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
