"""The pictures of a report about runs: learning curves, slices, accuracy against latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from textwrap import fill
from typing import Any, Final

from recdistill.evaluate import Latency, Report
from recdistill.experiments.document import Picture

__all__ = ["Curve", "curves_picture", "latency_picture", "slices_picture"]

#: Colours that the colour-blind can tell apart (Okabe, Ito 2008), with a line style each for print without colour.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8F98")
_STYLES: Final = ("-", "--", "-.", ":")
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
_SOFT, _LINE = "#6B7280", "#E5E7EB"


@dataclass(frozen=True)
class Curve:
    """One run's epochs.

    Attributes
    ----------
    name
        Of the run; runs of several seeds share it.
    epochs, loss, valid
        One number an epoch; `valid` is the validation metric and None where the epoch was not validated.
    """

    name: str
    epochs: Sequence[int]
    loss: Sequence[float]
    valid: Sequence[float | None]


def curves_picture(curves: Sequence[Curve], metric: str) -> list[Picture]:
    """Return validation metric and training loss over the epochs; nothing without matplotlib or epochs."""
    if not any(curve.epochs for curve in curves):
        return []
    names = list(dict.fromkeys(curve.name for curve in curves))

    def paint(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for curve in curves:
            number = names.index(curve.name)
            look = {"color": _COLOURS[number % 7], "linestyle": _STYLES[number // 7 % 4], "linewidth": 1.6}
            known = [(e, v) for e, v in zip(curve.epochs, curve.valid, strict=True) if v is not None]
            left.plot([e for e, _ in known], [v for _, v in known], **look)
            right.plot(curve.epochs, curve.loss, label=curve.name, **look)
        for axes, title in ((left, f"{metric.upper()} on validation"), (right, "training loss")):
            axes.set_title(title, loc="left", fontsize=11)
            axes.set_xlabel("epoch", fontsize=9, color=_SOFT)
            _clean(axes)
        _legend(figure, right)

    return _picture("curves", "Learning curves", paint, height=3.6 + 0.22 * len(names))


def slices_picture(report: Report) -> list[Picture]:
    """Return the report's metric on each slice, a group of bars a slice; nothing without matplotlib or slices."""
    if not report.slices:
        return []

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(report.slices), 1, squeeze=False)
        for (axes,), table in zip(grid, report.slices, strict=True):
            width = 0.8 / len(report.lines)
            for number, line in enumerate(report.lines):
                places = [place + (number + 0.5) * width - 0.4 for place in range(len(table.rows))]
                heights = [table.values[name][line.name] for name in table.rows]
                look = {"color": _COLOURS[number % 7], "hatch": ("", "//", "..", "xx")[number // 7 % 4]}
                axes.bar(places, heights, width * 0.92, label=line.name, **look)
            labels = [f"{name}\nn = {count:,}" for name, count in table.rows.items()]
            axes.set_xticks(range(len(labels)), labels, fontsize=9)
            axes.set_title(f"{report.metric.upper()} by {table.title}", loc="left", fontsize=11)
            _clean(axes)
        _legend(figure, grid[0][0])

    height = 2.4 * len(report.slices) + 0.22 * len(report.lines)
    return _picture("slices", f"{report.metric.upper()} on each slice", paint, height=height)


def latency_picture(report: Report, latencies: Mapping[str, Latency]) -> list[Picture]:
    """Return accuracy against the time of one user's answer; nothing without matplotlib or times."""
    lines = [line for line in report.lines if line.name in latencies]
    if not lines:
        return []

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for number, line in enumerate(lines):
            value, (low, high) = line.metrics[report.metric], line.interval
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
            look = {"color": _COLOURS[number % 7], "marker": _MARKS[number % 7]}
            axes.errorbar(
                latencies[line.name].cpu_p50, value, yerr=spread, label=line.name, capsize=3, **look
            )
        axes.set_xlabel("CPU milliseconds for one user's 20 best items (median, one thread)", fontsize=9)
        axes.set_title(f"{report.metric.upper()}, with its interval", loc="left", fontsize=11)
        axes.set_xlim(left=0)
        _clean(axes)
        _legend(figure, axes)

    return _picture("latency", "Accuracy against latency", paint, height=3.6 + 0.22 * len(lines))


def _picture(name: str, title: str, paint: Callable[[Any], None], *, height: float) -> list[Picture]:
    if find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 10, "font.family": "DejaVu Sans", "text.parse_math": False}):
        figure = Figure(figsize=(10, height), layout="constrained", facecolor="white")
        paint(figure)
        file = BytesIO()
        figure.savefig(file, format="png", dpi=150)
    return [Picture(name, title, file.getvalue())]


def _legend(figure: Any, axes: Any) -> None:
    """Name each model once, below the picture."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    shown = [fill(label, 60) for label in found]
    figure.legend(found.values(), shown, loc="outside lower left", ncols=2, frameon=False, fontsize=9)


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=_LINE, labelcolor=_SOFT, labelsize=9)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
