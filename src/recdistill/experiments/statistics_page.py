"""Table 4: the data, beside the paper's counts of the same dataset."""

from __future__ import annotations

from typing import Any

from recdistill.data.statistics import describe, published_row
from recdistill.evaluate.tables import Table
from recdistill.experiments.collect import Collected
from recdistill.experiments.document import Picture

__all__ = ["statistics_page"]


def statistics_page(collected: Collected) -> tuple[list[Any], list[Picture], dict[str, Any]]:
    """Return users, items, interactions and density; then what the paper does not print: the splits."""
    found = describe(collected.dataset)
    return [_counts(collected, found), _splits(collected, found)], [], {"statistics": found}


def _counts(collected: Collected, found: dict[str, Any]) -> Table:
    row = published_row(collected.dataset)
    columns = ["", "ours"]
    lines = [[name, _count(found[name])] for name in ("users", "items", "interactions")]
    lines.append(["density", _share(found["density"], digits=4)])
    if row is not None:
        columns += ["published", "difference"]
        for line, key in zip(lines, ("users", "items", "interactions", "density"), strict=True):
            ours, theirs = found[key], getattr(row, key)
            line += [_share(theirs, digits=4) if key == "density" else _count(theirs)]
            line += ["" if ours is None else f"{ours / theirs - 1:+.1%}"]
    caption = (
        "None: the source does not tell." if any(found[key] is None for key in ("users", "density")) else ""
    )
    if row is not None:
        caption += f" Published: {row.name}, all rows of the log before they are split."
    return Table("Counts", columns, lines, (), caption.strip())


def _splits(collected: Collected, found: dict[str, Any]) -> Table:
    columns = [
        "split",
        "rows",
        "history mean",
        "median",
        "longest",
        "targets not in training",
        "targets seen before",
    ]
    lines = []
    for name, split in found["splits"].items():
        cells = [name, _count(split["rows"])]
        if "history_mean" in split:
            cells += [
                f"{split['history_mean']:.1f}",
                f"{split['history_median']:.0f}",
                _count(split["history_max"]),
            ]
            cells += [_share(split["unseen_targets"]), _share(split["repeated_targets"])]
        lines.append(cells + [""] * (len(columns) - len(cells)))
    rule = collected.dataset.provenance.get("split", {}).get("kind", "unknown")
    return Table("Splits", columns, lines, (), f"Split rule: {rule}.")


def _count(value: int | None) -> str:
    return "None" if value is None else f"{value:,}"


def _share(value: float | None, digits: int = 1) -> str:
    return "None" if value is None else f"{value:.{digits}%}"
