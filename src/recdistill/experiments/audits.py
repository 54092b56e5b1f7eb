"""Tables 2 and 3: who ranks the target better how often, and what the top lists of teacher and student share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recdistill.errors import KnowledgeError
from recdistill.evaluate import top_items
from recdistill.evaluate.tables import Table
from recdistill.experiments.blocks import compared, runs_table
from recdistill.experiments.collect import Collected, Outcome
from recdistill.experiments.document import Picture
from recdistill.experiments.naming import PLAIN
from recdistill.experiments.published import OVERLAP, STRENGTH
from recdistill.export import load_scorer
from recdistill.knowledge import Knowledge, audit_knowledge, load_knowledge
from recdistill.knowledge.findings import Rival

__all__ = ["strength_page"]

_K = 20
Facts = dict[str, Any]


def strength_page(collected: Collected) -> tuple[list[Any], list[Picture], Facts]:
    """Return Table 2 or 3 for every teacher and student; shares are means over the student's seeds.

    Raises
    ------
    RunError
        No run of a student has finished.
    KnowledgeError
        There is no teacher with answers to the test rows.
    """
    tables: list[Any] = []
    facts: Facts = {}
    table = collected.plan.table
    if not collected.teachers:
        raise KnowledgeError(
            f"no teacher has answered the test rows, which {table} compares. Make one with: recdistill teach ... "
            "--splits train,valid,test"
        )
    for folder, result in collected.teachers.items():
        knowledge = load_knowledge(folder, collected.dataset)
        for student in collected.plan.students:
            compared(collected, student, PLAIN)  # refuses a student without a finished run
            rivals = [
                rival
                for outcome in collected.of(student)
                for rival in _rivals(collected, knowledge, outcome, table == "table3")
            ]
            made = _strength(collected, result.name, student, rivals)
            if table == "table3":
                made = _overlap(collected, result.name, student, rivals)
            tables.append(made[0])
            facts[f"{result.name} / {student}"] = made[1]
    tables += [runs_table(collected, student) for student in collected.plan.students]
    return tables, [], {"audits": facts}


def _rivals(collected: Collected, knowledge: Knowledge, outcome: Outcome, lists: bool) -> list[Rival]:
    """Audit the teacher against each seed of a student."""
    dataset, found = collected.dataset, []
    for run, evaluation in zip(outcome.runs, outcome.evaluations, strict=True):
        top = None
        if lists:
            scorer, length = load_scorer(run)
            rows, k = dataset.rows("test"), min(_K, dataset.item_count)
            top = top_items(scorer, dataset, rows, k, length=length, filter_seen=collected.filter_seen)
        audit = audit_knowledge(
            knowledge,
            dataset,
            filter_seen=collected.filter_seen,
            other=evaluation,
            other_top=top,
            slices={},
            k=_K,
        )
        if audit.model is not None:
            found.append(audit.model)
    return found


def _strength(collected: Collected, teacher: str, student: str, rivals: list[Rival]) -> tuple[Table, Facts]:
    parts = [rival.strength for rival in rivals]
    ratio = [part.ratio for part in parts if part.ratio is not None]
    hits = [part.hit_ratio for part in parts if part.hit_ratio is not None]
    key = collected.match.key if student == "dros" else None
    columns = ["condition", "ratio", f"ratio where one hits the top {_K}", "share of all rows"]
    lines = [
        [f"{teacher} > {student}", _mean(ratio), _mean(hits), _mean([part.better for part in parts])],
        [
            f"{teacher} < {student}",
            _mean([1 - value for value in ratio]),
            _mean([1 - value for value in hits]),
            _mean([part.worse for part in parts]),
        ],
        ["equal rank", "", "", _mean([part.equal for part in parts])],
    ]
    if key is not None:
        columns += ["ratio published", "ours − published"]
        theirs = (STRENGTH[key], 1 - STRENGTH[key])
        for line, value, ours in zip(lines, theirs, (np.mean(ratio), 1 - np.mean(ratio)), strict=False):
            line += [f"{value:.2%}", f"{100 * (ours - value):+.2f} points"]
        lines[2] += ["", ""]
    caption = f"By the rank of the target, {_rows(parts[0].rows)}; the ratio leaves equal ranks out, as the paper's."
    facts = {"strength": [vars(part) for part in parts]}
    return Table(
        f"{teacher} against {student} ({collected.plan.variant})", columns, lines, (), caption
    ), facts


def _overlap(collected: Collected, teacher: str, student: str, rivals: list[Rival]) -> tuple[Table, Facts]:
    parts = [rival.overlap for rival in rivals if rival.overlap is not None]
    if not parts:
        raise KnowledgeError(
            f"{teacher} has no rankings of the test rows, which table3 compares. Make it with: recdistill teach"
        )
    shares: Mapping[str, tuple[list[float], list[float | None]]] = {
        f"{teacher} only": ([p.first_only for p in parts], [p.hits_first_only for p in parts]),
        f"{student} only": ([p.second_only for p in parts], [p.hits_second_only for p in parts]),
        "overlapped": ([p.shared for p in parts], [p.hits_shared for p in parts]),
    }
    key = collected.match.key if student == "dros" else None
    columns = ["recommended by", "items", "of them hits"]
    columns += ["items published", "hits published"] if key else []
    lines = []
    for place, (name, (items, hits)) in enumerate(shares.items()):
        line = [name, _mean(items), _mean([hit for hit in hits if hit is not None])]
        if key is not None:
            line += [f"{value:.2%}" for value in OVERLAP[key][place]]
        lines.append(line)
    caption = f"Shares of the items in the top {_K} lists of the test rows."
    facts = {"overlap": [vars(part) for part in parts]}
    return Table(f"{teacher} and {student} ({collected.plan.variant})", columns, lines, (), caption), facts


def _mean(values: list[float]) -> str:
    """Return the mean share in percent, with the standard deviation over seeds."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.2%}" if len(values) > 1 else ""
    return f"{np.mean(values):.2%}{spread}"


def _rows(count: int) -> str:
    return f"{count:,} rows"
