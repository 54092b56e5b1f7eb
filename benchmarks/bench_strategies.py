"""What each strategy adds to a training step of the student alone.

A modern SASRec (d = 64, two blocks, tied table) with the full softmax, windows of 10, batches of 256 rows. A step is
everything: drawing the batch and the teacher's rows, forward, backward, AdamW. All sides train in turn in one
process, each as often and on the same batches (those of whole sequences differ in size); the ratio is that of a
strategy's step to the plain student's, in CPU time with one thread. The goals:
1.5 times for strategies that read the teacher's list alone, 3 times for the others.

The teacher is made (lists of 100, vectors of 64), so this says nothing about accuracy. `--supervision all` takes
whole sequences, in which every position is a row, as the modern preset does. Ratios are higher there: the student's
body is shared by many rows, what a strategy does is not. The made lists are random, so that RD ends most of
its counts early; where teacher and student agree it counts to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import report
import synthetic
from measure import compare
from ours import Steps, modern_sasrec
from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge
from recdistill.losses import CE
from recdistill.strategies import STRATEGIES, Strategy
from recdistill.train import BatchLoader, TrainOptions

CHEAP, DEAR = 1.5, 3.0
#: Name in the table: strategy, options, goal. Epochs that begin with a cheaper rule are passed over.
#: Without a goal: an option that counts ranks where the default estimates them.
SIDES: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "rd": ("rd", {"start_epoch": -1}, CHEAP),
    "rd, static": ("rd", {"weighting": "static"}, CHEAP),
    "importance": ("importance", {"variant": "corrected"}, CHEAP),
    "hint": ("hint", {"rank": 64}, CHEAP),
    "rrd": ("rrd", {}, CHEAP),
    "rrd, full": ("rrd", {"negatives": "full"}, DEAR),
    "cd": ("cd", {}, DEAR),
    "cd, student": ("cd", {"guide": "student"}, DEAR),
    "dcd": ("dcd", {}, DEAR),
    "dcd, exact ranks": ("dcd", {"ranks": "exact"}, None),
    "dcd, item side": ("dcd", {"item_weight": 1.0}, DEAR),
    "unkd": ("unkd", {}, DEAR),
    "rce": ("rce", {}, DEAR),
    "rce, vectors": ("rce", {"teacher_scores": "dot"}, DEAR),
    "hetcomp": ("hetcomp", {}, DEAR),
    "soft_labels": ("soft_labels", {}, DEAR),
    "soft_labels, list": ("soft_labels", {"support": "list"}, DEAR),
    "soft_labels, vectors": ("soft_labels", {"teacher": "dot"}, DEAR),
    "de": ("de", {"rank": 64}, DEAR),
    "htd": ("htd", {"rank": 64}, DEAR),
    "freqd": ("freqd", {}, DEAR),
    "pckd": ("pckd", {}, DEAR),
}


def teacher(dataset: SequenceDataset, *, listed: int, size: int, seed: int) -> Knowledge:
    """Return a made teacher whose distances are negative log-probabilities, with vectors of rows and items."""
    generator = np.random.default_rng(seed)
    made = synthetic.teacher(dataset, size=size, listed=listed, seed=seed)
    logs = np.sort(generator.standard_normal(made.ranking.shape).astype(np.float32))[:, ::-1]
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True)) + 0.5  # the list holds exp(-0.5) of 1
    queries = generator.standard_normal((len(dataset.row_ids), size), dtype=np.float32)
    return Knowledge(
        **{**made.fields, "ranking_distance": np.ascontiguousarray(-logs), "query_embeddings": queries},
        row_ids=made.row_ids,
        item_count=made.item_count,
        manifest={**made.manifest, "embedding_metric": "dot"},
    )


def make_steps(
    dataset: SequenceDataset, knowledge: Knowledge, side: str | None, *, batch_size: int, supervision: str
) -> Steps:
    """Return the training steps of a student with one strategy, or of the plain student."""
    torch.manual_seed(0)
    model = modern_sasrec(dataset.item_count, length=10, expansion=4, heads=2, dropout=0.2)
    strategies: list[tuple[float, Strategy]] = []
    if side is not None:
        name, options, _ = SIDES[side]
        strategies = [(0.1, STRATEGIES[name](**options))]
    known = knowledge if strategies else None
    loader = BatchLoader(dataset, supervision, 10, batch_size, knowledge=known)  # type: ignore[arg-type]
    options = TrainOptions(optimizer="adamw")
    return Steps(dataset, model, CE(), strategies, known, loader, options)


def measure(
    dataset: SequenceDataset, knowledge: Knowledge, sides: list[str], options: Any
) -> tuple[dict[str, dict[str, float]], int]:
    """Return the times of the plain student and of each side, and the rows of a step."""
    made: dict[str, Callable[[], object]] = {
        name or "student alone": make_steps(
            dataset, knowledge, name, batch_size=options.batch_size, supervision=options.supervision
        )
        for name in (None, *sides)
    }
    times = compare(made, repeats=options.repeats, threads=options.threads)
    return times, made["student alone"].targets  # type: ignore[attr-defined]


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, default=17408)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--listed", type=int, default=100, help="items in a teacher's list")
    parser.add_argument("--width", type=int, default=64, help="numbers in a teacher's vector")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--supervision", choices=["last", "all"], default="last")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(SIDES), default=list(SIDES), metavar="SIDE")
    options = parser.parse_args()
    if options.supervision == "last":
        dataset = synthetic.windows(options.rows, options.items, seed=options.seed)
    else:
        dataset = synthetic.users(options.rows // 10, options.items, mean=10, longest=60, seed=options.seed)
    knowledge = teacher(dataset, listed=options.listed, size=options.width, seed=options.seed + 1)
    times, targets = measure(dataset, knowledge, options.only, options)
    base = times["student alone"]
    rows, ratios = [], {}
    for name, value in times.items():
        ratio = report.ratio(value, base)
        goal = SIDES[name][2] if name in SIDES else None
        ratios[name] = ratio
        met = None if goal is None else ratio["cpu_1_thread"] <= goal
        median = value["cpu_1_thread_median_ms"] / base["cpu_1_thread_median_ms"]
        ratios[name]["cpu_1_thread_median"] = median
        rows.append(
            (
                name,
                value["cpu_1_thread_ms"],
                value["wall_min_ms"],
                ratio["cpu_1_thread"],
                median,
                ratio["wall"],
                goal,
                met,
            )
        )
    head = (
        "step",
        "CPU min ms, 1 thread",
        "wall min ms",
        "times, CPU min",
        "times, CPU median",
        "times, wall",
        "goal",
        "met",
    )
    text = f"{targets} rows a step, {options.items:,} items, lists of {options.listed}.\n\n" + report.table(
        head, rows
    )
    content = {
        "setting": {**vars(options), "out": str(options.out)},
        "times": times,
        "ratio": ratios,
        "goals": {name: SIDES[name][2] for name in options.only},
    }
    report.save("strategies", options.threads, options.out, content, text)


if __name__ == "__main__":
    main()
