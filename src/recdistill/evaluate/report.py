"""One comparison of many models, as terminal tables, Markdown, JSON and a picture.

Every number in a report comes from the same rows, items and rules, and every table says which. The
models are compared with one reference on one metric; p-values are Holm-corrected over a table's comparisons.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recdistill.evaluate.bootstrap import Interval
from recdistill.evaluate.significance import Comparison
from recdistill.runs import MANIFEST, atomic_folder, read_manifest, write_manifest

if TYPE_CHECKING:
    from rich.console import Group

Kind = Literal["baseline", "teacher", "student", "distilled", "oracle"]


@dataclass(frozen=True)
class ReportLine:
    """One model of a report.

    Attributes
    ----------
    name, kind
        What it is called and what it is.
    seeds
        The seed of each run, None where there is none.
    metrics
        Means over rows and seeds: ``{"hr@1": ..., ...}``.
    spread
        Standard deviation of each metric over the seeds; empty with a single seed.
    interval
        Bootstrap interval of the report's metric.
    comparison
        Against the reference; None for the reference itself.
    """

    name: str
    kind: Kind
    seeds: tuple[int | None, ...]
    metrics: Mapping[str, float]
    spread: Mapping[str, float]
    interval: Interval
    comparison: Comparison | None


@dataclass(frozen=True)
class SliceTable:
    """The report's metric on each slice of one kind.

    Attributes
    ----------
    title
        Such as ``"hop distance"``.
    rows
        Slice → number of rows.
    values
        Slice → model → mean.
    comparisons
        Slice → model → comparison with the reference; Holm-corrected over the whole table.
    """

    title: str
    rows: Mapping[str, int]
    values: Mapping[str, Mapping[str, float]]
    comparisons: Mapping[str, Mapping[str, Comparison]]


@dataclass(frozen=True)
class Report:
    """A comparison of models; made by `recdistill.evaluate.comparison_report`.

    Attributes
    ----------
    dataset, split, rows, items, filter_seen
        What was asked.
    metric, ks, reference
        What is compared, the cut-offs of the tables, and with whom.
    permutations, resamples, confidence
        Of the tests and intervals.
    lines
        The models in the order they were given.
    slices
        One table for each kind of slice.
    """

    dataset: str
    split: str
    rows: int
    items: int
    filter_seen: bool
    metric: str
    ks: tuple[int, ...]
    reference: str
    permutations: int
    resamples: int
    confidence: float
    lines: Sequence[ReportLine]
    slices: Sequence[SliceTable]

    @property
    def protocol(self) -> str:
        """What was asked, in words."""
        seen = "filtered" if self.filter_seen else "kept"
        return f"{self.dataset}, {self.split}, {self.rows:,} rows, {self.items:,} items, seen items {seen}"

    def to_markdown(self) -> str:
        """Return all tables as Markdown."""
        from recdistill.evaluate.tables import markdown

        return markdown(self)

    def to_rich(self) -> Group:
        """Return all tables for a terminal: ``rich.console.Console().print(report.to_rich())``."""
        from recdistill.evaluate.tables import rich_tables

        return rich_tables(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dictionaries."""
        return asdict(self)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def plot(self, path: Path | str) -> None:
        """Draw the comparison; the suffix of the path (``.png``, ``.svg``, ``.pdf``) chooses the format.

        Raises
        ------
        MissingExtraError
            matplotlib is not installed.
        """
        from recdistill.evaluate.picture import draw

        draw(self, Path(path))

    def save(self, folder: Path | str) -> None:
        """Write ``report.md``, ``report.json`` and, with matplotlib, ``comparison.png`` and ``.svg``.

        An earlier report in the folder is replaced.

        Raises
        ------
        RunError
            The folder holds something else than a report.
        """
        folder = Path(folder)
        if (folder / MANIFEST).is_file():
            read_manifest(folder, "report")
        with atomic_folder(folder, overwrite=True) as out:
            picture = importlib.util.find_spec("matplotlib") is not None
            if picture:
                self.plot(out / "comparison.png")
                self.plot(out / "comparison.svg")
            shown = f"![{self.metric}](comparison.png)\n" if picture else ""
            (out / "report.md").write_text(f"{self.to_markdown()}\n{shown}", encoding="utf-8")
            (out / "report.json").write_text(self.to_json(), encoding="utf-8")
            write_manifest(out, "report", {"protocol": self.protocol, "picture": picture})
