"""The picture of a report: what each model reaches, and how far it is from the reference."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, Final

from recdistill.evaluate.report import Kind, Report, ReportLine
from recdistill.evaluate.tables import LEVEL, comparisons, protocol, show_metric, show_p
from recdistill.extras import extra

#: Colours that the colour-blind can tell apart (Okabe, Ito 2008), and a mark for print without colour.
_LOOK: Final[dict[Kind, tuple[str, str, str]]] = {
    "baseline": ("#8A8F98", "s", "free baseline"),
    "teacher": ("#0072B2", "D", "teacher"),
    "student": ("#E69F00", "o", "student without a teacher"),
    "distilled": ("#009E73", "^", "distilled student"),
    "oracle": ("#CC79A7", "*", "oracle"),
}
_SIZES: Final = {"*": 10, "^": 8}
_INK, _SOFT, _LINE = "#22262B", "#6B7280", "#E5E7EB"
_ROW_INCHES, _FRAME_INCHES, _WIDTH_INCHES = 0.36, 1.75, 10.0
#: Settings that make the same report the same file.
_SETTINGS: Final[Any] = {
    "svg.hashsalt": "recdistill",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": _LINE,
    "text.parse_math": False,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.wspace": 0.06,
}


def draw(report: Report, path: Path) -> None:
    """Draw the values (left) and the paired differences from the reference (right), with their intervals.

    Parameters
    ----------
    report
        The comparison.
    path
        The file to write; its suffix chooses the format.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    with extra("report"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        height = _FRAME_INCHES + _ROW_INCHES * len(report.lines)
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        _values(left, report)
        _differences(right, report)
        _frame(figure, report)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=200, metadata=metadata)


def _values(axes: Any, report: Report) -> None:
    for place, line in enumerate(report.lines):
        _dot(axes, place, line, line.metrics[report.metric], line.interval)
        axes.annotate(
            f"{line.metrics[report.metric]:.4f}",
            (line.interval[1], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
            fontsize=9,
        )
    axes.set_title(show_metric(report.metric), loc="left", color=_INK, fontsize=11)
    axes.set_xlim(left=0)
    axes.margins(x=0.14)
    axes.set_yticks(range(len(report.lines)), [fill(line.name, 38) for line in report.lines])
    axes.set_ylim(len(report.lines) - 0.4, -0.6)  # the first model on top
    _clean(axes)


def _differences(axes: Any, report: Report) -> None:
    axes.axvline(0, color=_SOFT, linewidth=1, zorder=1)
    for place, line in enumerate(report.lines):
        found = line.comparison
        if found is None:
            axes.annotate(
                "reference", (0, place), xytext=(6, 0), textcoords="offset points", va="center", color=_SOFT
            )
            continue
        _dot(axes, place, line, found.difference, found.interval, faded=found.p_holm >= LEVEL)
        relative = "" if found.relative is None else f"{found.relative:+.1%}".replace("-", "−")
        colour = _INK if found.p_holm < LEVEL else _SOFT
        _beside(axes, place, relative, points=58, align="right", color=colour)
        _beside(axes, place, f"p {_equals(found.p_holm)}", points=68, align="left", color=colour)
    axes.set_title(fill(f"difference from {report.reference}", 46), loc="left", color=_INK, fontsize=11)
    axes.margins(x=0.08)
    _clean(axes)


def _beside(axes: Any, place: int, text: str, *, points: int, align: str, color: str) -> None:
    """Write a text in a column on the right of the axes."""
    axes.annotate(
        text,
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(points, 0),
        textcoords="offset points",
        va="center",
        ha=align,
        color=color,
        fontsize=9,
    )


def _equals(p: float) -> str:
    shown = show_p(p)
    return shown if shown.startswith("<") else f"= {shown}"


def _dot(
    axes: Any,
    place: int,
    line: ReportLine,
    value: float,
    interval: tuple[float, float],
    *,
    faded: bool = False,
) -> None:
    """Draw one value and its interval; hollow where the difference is not significant."""
    colour, mark, _ = _LOOK[line.kind]
    axes.hlines(place, *interval, color=colour, linewidth=2.4, alpha=0.55, zorder=2)
    axes.plot(
        value,
        place,
        mark,
        color=colour,
        markersize=_SIZES.get(mark, 7),
        markerfacecolor="white" if faded else colour,
        markeredgecolor=colour,
        markeredgewidth=1.6,
        zorder=3,
    )


def _clean(axes: Any) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=_INK)
    axes.tick_params(axis="x", color=_LINE, labelcolor=_SOFT, labelsize=9)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)


def _frame(figure: Any, report: Report) -> None:
    """Add the legend of the kinds that occur above the chart, and what was asked below it."""
    from matplotlib.lines import Line2D

    kinds = [kind for kind in _LOOK if any(line.kind == kind for line in report.lines)]
    handles = [
        Line2D([], [], color=_LOOK[kind][0], marker=_LOOK[kind][1], linewidth=2.4, label=_LOOK[kind][2])
        for kind in kinds
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    compared = sum(line.comparison is not None for line in report.lines)
    note = (
        f"{protocol(report)}.\nLines: {report.confidence:.0%} bootstrap intervals over rows and seeds. "
        f"Hollow: no significant difference. p: paired randomisation, Holm over {comparisons(compared)}."
    )
    figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=_SOFT, linespacing=1.4)
