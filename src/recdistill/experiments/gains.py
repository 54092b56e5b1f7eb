"""The order of the strategies: mean relative gains over the plain student, ours and the paper's."""

from __future__ import annotations

from typing import Any

import numpy as np

from recdistill.evaluate.tables import Table
from recdistill.experiments.blocks import HR, NDCG
from recdistill.experiments.collect import Collected, Outcome
from recdistill.experiments.document import Picture
from recdistill.experiments.naming import PLAIN
from recdistill.experiments.published import published_gain

__all__ = ["gain_table"]


def gain_table(collected: Collected) -> tuple[list[Any], list[Picture], dict[str, Any]]:
    """Return the mean gains over students, HR@20 and NDCG@20; only lines that every student has are ranked."""
    gains = _gains(collected)
    full = {name: found for name, found in gains.items() if len(found) == len(collected.plan.students)}
    if not full:
        return [], [], {"gains": {}}
    ours = {name: float(np.mean(list(found.values()))) for name, found in full.items()}
    theirs = {name: value for name in ours if (value := _published(collected, name)) is not None}
    ordered = sorted(ours, key=lambda name: -ours[name])
    columns = ["model", "mean gain", "place"]
    columns += ["published", "place among these", "ours among these"] if theirs else []
    both = [name for name in ordered if name in theirs]
    published_order = sorted(both, key=lambda name: -theirs[name])
    lines = []
    for place, name in enumerate(ordered, start=1):
        line = [name, f"{ours[name]:+.1%}", str(place)]
        if theirs:
            line += (
                [f"{theirs[name]:+.1%}", str(published_order.index(name) + 1), str(both.index(name) + 1)]
                if name in theirs
                else [""] * 3
            )
        lines.append(line)
    caption = (
        f"Mean relative gain over the student without a teacher, over HR@20 and NDCG@20 and the students "
        f"{', '.join(collected.plan.students)}. {_agreement(both, published_order)}"
    )
    table = Table("Gains", columns, lines, (), caption.strip())
    return [table], [], {"gains": {"ours": ours, "published": theirs}}


def _gains(collected: Collected) -> dict[str, dict[str, float]]:
    """Return line → student → mean gain over both metrics."""
    found: dict[str, dict[str, float]] = {}
    for student in collected.plan.students:
        outcomes = {o.line.name: o for o in collected.of(student) if o.evaluations}
        plain = outcomes.pop(PLAIN, None)
        if plain is None:
            continue
        for name, outcome in outcomes.items():
            ratios = [_metric(outcome, m) / base for m in (HR, NDCG) if (base := _metric(plain, m))]
            if ratios:
                found.setdefault(name, {})[student] = float(np.mean(ratios)) - 1
    return found


def _metric(outcome: Outcome, metric: str) -> float:
    return float(np.mean([one.per_row(metric).mean() for one in outcome.evaluations]))


def _published(collected: Collected, name: str) -> float | None:
    """Return the published mean gain on this dataset over the same students, or None."""
    row = next(o.line.row for o in collected.outcomes if o.line.name == name)
    key = collected.match.key
    values = [published_gain(key, student, row) for student in collected.plan.students] if key else [None]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _agreement(ours: list[str], published: list[str]) -> str:
    """Say how far the two orders agree (Kendall's tau)."""
    if len(ours) < 3:
        return ""
    from scipy.stats import kendalltau

    tau = float(kendalltau([published.index(name) for name in ours], range(len(ours))).statistic)
    return f"Agreement of the two orders (Kendall's tau): {tau:+.2f}."
