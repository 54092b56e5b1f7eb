"""The tables of a report, written once and shown as Markdown or in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recdistill.evaluate.accuracy import METRICS
from recdistill.evaluate.report import Kind, Report, ReportLine, SliceTable
from recdistill.evaluate.significance import Comparison

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

#: Below this corrected p-value a difference is marked.
LEVEL: Final = 0.05
_BETTER, _WORSE, _REFERENCE = "▲", "▼", "reference"
_STYLES: Final[dict[Kind, str]] = {
    "baseline": "dim",
    "teacher": "cyan",
    "student": "yellow",
    "distilled": "bold green",
    "oracle": "magenta",
}


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the model, whose kind chooses the line's style (none: plain)."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    kinds: Sequence[Kind]
    caption: str


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    head = f"# {show_metric(report.metric)} on {report.dataset}\n"
    return "\n".join([head, *(markdown_table(table) for table in tables(report))])


def rich_tables(report: Report) -> Group:
    """Return the report for a terminal."""
    from rich.console import Group

    return Group(*(rich_table(table) for table in tables(report)))


def tables(report: Report) -> list[Table]:
    """Return the headline, one table for each metric over all cut-offs, and the slices."""
    return [
        _headline(report),
        *(_cut_offs(report, metric) for metric in METRICS),
        *(_slices(report, table) for table in report.slices),
    ]


def show_metric(metric: str) -> str:
    """Return ``"NDCG@20"`` for ``"ndcg@20"``."""
    return metric.upper()


def _headline(report: Report) -> Table:
    k = report.metric.partition("@")[2]
    names = [f"{metric}@{k}" for metric in METRICS]
    columns = [
        "model",
        "kind",
        *map(show_metric, names),
        f"Δ {show_metric(report.metric)}",
        "relative",
        f"{report.confidence:.0%} interval",
        "p (Holm)",
    ]
    lines = [
        [
            line.name,
            line.kind,
            *(show_value(line, name, spread=name == report.metric) for name in names),
            *show_difference(line.comparison),
        ]
        for line in report.lines
    ]
    caption = f"{show_question(report)}; k = {k}. {show_tests(report, len(report.lines) - 1)}"
    return Table(f"Comparison with {report.reference}", columns, lines, _kinds(report), caption)


def _cut_offs(report: Report, metric: str) -> Table:
    names = [f"{metric}@{k}" for k in report.ks]
    lines = [[line.name, *(show_value(line, name) for name in names)] for line in report.lines]
    columns = ["model", *map(show_metric, names)]
    caption = f"{show_question(report)}. Tested is {show_metric(report.metric)}, in the first table."
    return Table(f"{show_metric(metric)} at every cut-off", columns, lines, _kinds(report), caption)


def _slices(report: Report, table: SliceTable) -> Table:
    columns = ["model", *(f"{name} (n = {count:,})" for name, count in table.rows.items())]
    lines = [
        [line.name, *(_slice_value(table, name, line.name) for name in table.rows)] for line in report.lines
    ]
    tested = sum(len(found) for found in table.comparisons.values())
    caption = (
        f"{show_question(report)}. {_BETTER} better, {_WORSE} worse than {report.reference} at p < {LEVEL}. "
        f"{show_tests(report, tested)}"
    )
    return Table(f"{show_metric(report.metric)} by {table.title}", columns, lines, _kinds(report), caption)


def _kinds(report: Report) -> list[Kind]:
    return [line.kind for line in report.lines]


def show_value(line: ReportLine, metric: str, *, spread: bool = True) -> str:
    """Return ``"0.0513 ± 0.0004"``; the standard deviation over seeds where there are several."""
    shown = f" ± {line.spread[metric]:.4f}" if spread and metric in line.spread else ""
    return f"{line.metrics[metric]:.4f}{shown}"


def show_difference(comparison: Comparison | None) -> list[str]:
    """Return the difference with its mark, the relative difference, the interval and the corrected p-value."""
    if comparison is None:
        return [_REFERENCE, "", "", ""]
    low, high = comparison.interval
    relative = "" if comparison.relative is None else f"{comparison.relative:+.1%}"
    return [
        f"{comparison.difference:+.4f}{_mark(comparison)}",
        relative,
        f"{low:+.4f} .. {high:+.4f}",
        show_p(comparison.p_holm),
    ]


def _slice_value(table: SliceTable, name: str, model: str) -> str:
    comparison = table.comparisons[name].get(model)
    mark = "" if comparison is None else _mark(comparison)
    return f"{table.values[name][model]:.4f}{mark}"


def _mark(comparison: Comparison) -> str:
    if comparison.p_holm >= LEVEL:
        return ""
    return f" {_BETTER if comparison.difference > 0 else _WORSE}"


def show_p(p: float) -> str:
    """Return a p-value with two significant digits, as ``"< 0.001"`` below that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.995 else "1"


def protocol(report: Report) -> str:
    """Return what was asked and the seeds; lines without a seed (baselines, teachers) add none."""
    seeds = sorted({seed for line in report.lines for seed in line.seeds if seed is not None})
    return f"{report.protocol}; seeds {', '.join(map(str, seeds))}" if seeds else report.protocol


def show_question(report: Report) -> str:
    """Return what was asked, with the seeds."""
    spread = " (mean ± standard deviation)" if any(line.spread for line in report.lines) else ""
    return f"{protocol(report)}{spread}"


def comparisons(count: int) -> str:
    """Return ``"1 comparison"``, ``"2 comparisons"``."""
    return f"{count} comparison{'s' if count != 1 else ''}"


def show_tests(report: Report, count: int) -> str:
    """Return how `count` comparisons were tested."""
    return (
        f"p: paired randomisation against {report.reference}, {report.permutations:,} permutations, Holm "
        f"over {comparisons(count)}; intervals: bootstrap over rows and "
        f"seeds, {report.resamples:,} resamples."
    )


def markdown_table(table: Table) -> str:
    """Return one table as Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    body = [line(table.columns), rule, *map(line, table.lines)]
    return f"## {table.title}\n\n" + "\n".join(body) + f"\n\n{table.caption}\n"


def rich_table(table: Table) -> RichTable:
    """Return one table for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text(table.caption, style="dim"),
        box=SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
    )
    for number, column in enumerate(table.columns):
        shown.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    styles = [_STYLES[kind] for kind in table.kinds] or [""] * len(table.lines)
    for cells, style in zip(table.lines, styles, strict=True):
        shown.add_row(*(Text(cell) for cell in cells), style=style)
    return shown
