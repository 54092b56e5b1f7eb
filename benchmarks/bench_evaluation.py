"""Full-rank evaluation: rows x items, ours against the authors', each in a fresh process.

Ours scores rows in batches without gradient and counts how many items beat the target, with the folded model
that a run leaves behind; the time of folding, once a model, is measured beside it and added. Theirs is
`authors_evaluation.py`. Both end with hits at the same cut-offs. The peak resident size is that of the whole
process, interpreter and torch included, and for theirs and for folding the teacher's vectors. Where the memory
is too small for the authors' way, they get the rows in pieces, and the table says so.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import measure
import report
import synthetic

LENGTH, CUTOFFS = 10, (1, 5, 10, 20, 50)
GOAL_RATIO, GOAL_MIB = 10, 1024
MIB_PER_ROW = 0.6  # of the authors' way at 17,408 items and 4,096 numbers an item, measured


def timed(threads: int, work: Any) -> dict[str, Any]:
    """Run `work` once; return seconds, memory before and at the peak, and what it returned."""
    torch.set_num_threads(threads)
    before = measure.peak_rss_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "before_mib": before,
        "peak_mib": measure.peak_rss_mib(),
        "answer": answer,
    }


def authors_side(options: dict[str, int]) -> dict[str, Any]:
    """Evaluate made rows the authors' way, in pieces of `piece` rows."""
    from authors_evaluation import authors_evaluation
    from authors_step import AuthorsSASRec

    dataset = synthetic.windows(options["rows"], options["items"], length=LENGTH)
    vectors = np.random.default_rng(1).standard_normal((options["items"], options["width"]), dtype=np.float32)
    model = AuthorsSASRec(options["items"], torch.from_numpy(vectors), length=LENGTH)
    rows = dataset.rows("train")
    histories = dataset.histories(rows, LENGTH)
    sequences = torch.from_numpy(np.where(histories < 0, options["items"], histories))
    lengths = torch.from_numpy(np.minimum(dataset.history_lengths(rows), LENGTH))
    targets = torch.from_numpy(dataset.targets(rows))

    def work() -> list[float]:
        hits = np.zeros(len(CUTOFFS))
        for start in range(0, len(rows), options["piece"]):
            part = slice(start, start + options["piece"])
            hits += authors_evaluation(model, sequences[part], lengths[part], targets[part], CUTOFFS)[0]
        return (hits / len(rows)).tolist()

    return timed(options["threads"], work)


def our_side(options: dict[str, int]) -> dict[str, Any]:
    """Evaluate the same rows with the library, on a folded model."""
    from ours import folded_scorer, paper_sasrec
    from recdistill.evaluate import Evaluation, target_ranks

    dataset = synthetic.windows(options["rows"], options["items"], length=LENGTH, split=2)
    scorer = folded_scorer(paper_sasrec(options["items"], None, length=LENGTH))
    rows = dataset.rows("test")

    def work() -> list[float]:
        ranks = target_ranks(scorer, dataset, rows, length=LENGTH)
        evaluation = Evaluation("ours", "test", dataset.row_ids[rows], ranks.kept, dataset.item_count, False)
        metrics = evaluation.metrics(CUTOFFS)
        return [metrics[f"hr@{k}"] for k in CUTOFFS]

    return timed(options["threads"], work)


def folding_side(options: dict[str, int]) -> dict[str, Any]:
    """Fold a student with the teacher's vectors at its input."""
    from ours import fold, paper_sasrec

    vectors = np.random.default_rng(1).standard_normal((options["items"], options["width"]), dtype=np.float32)
    model = paper_sasrec(options["items"], vectors, length=LENGTH)
    return timed(options["threads"], lambda: len(list(fold(model).parameters())))


SIDES = {"authors": authors_side, "ours": our_side, "folding": folding_side}


def summarise(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the best of one side's runs: CPU time with one thread, wall time with several, peak memory."""
    return {
        "cpu_1_thread_ms": 1e3 * min(run["cpu_s"] for run in runs if run["threads"] == 1),
        "wall_1_thread_ms": 1e3 * min(run["wall_s"] for run in runs if run["threads"] == 1),
        "wall_min_ms": 1e3 * min(run["wall_s"] for run in runs if run["threads"] == runs[-1]["threads"]),
        "peak_mib": max(run["peak_mib"] for run in runs),
        "before_mib": max(run["before_mib"] for run in runs),
    }


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] in SIDES:
        sys.stdout.write(json.dumps(SIDES[sys.argv[1]](json.loads(sys.argv[2]))) + "\n")
        return
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, default=15000)
    parser.add_argument("--items", type=int, default=17408)
    parser.add_argument("--width", type=int, default=4096, help="numbers in a teacher vector")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--piece", type=int, default=0, help="rows at once for the authors' way; 0: what fits"
    )
    options = parser.parse_args()
    fitting = int(measure.available_mib() * 0.7 / MIB_PER_ROW) or options.rows
    setting = {
        "rows": options.rows,
        "items": options.items,
        "width": options.width,
        "piece": min(options.rows, options.piece or fitting),
    }
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for threads in sorted({1, options.threads}):
        for _ in range(options.repeats):
            for side, done in runs.items():
                argument = json.dumps({**setting, "threads": threads})
                answer = measure.in_subprocess([Path(__file__), side, argument])
                done.append({**answer, "threads": threads})
    best = {side: summarise(done) for side, done in runs.items()}
    whole = {key: value + best["folding"][key] for key, value in best["ours"].items()}
    ratio = report.ratio(best["authors"], whole)
    rows = [
        (
            side,
            value["cpu_1_thread_ms"] / 1e3,
            value["wall_1_thread_ms"] / 1e3,
            value["wall_min_ms"] / 1e3,
            round(value["peak_mib"]),
        )
        for side, value in best.items()
    ]
    text = report.table(
        ("side", "CPU s, 1 thread", "wall s, 1 thread", f"wall s, {options.threads} threads", "peak MiB"),
        rows,
    )
    text += (
        f"\n\n{options.rows:,} rows x {options.items:,} items; the authors' way got {setting['piece']:,} "
        f"rows at once. Ours, folding included, is {ratio['cpu_1_thread']:.1f} times faster in CPU time, "
        f"{ratio['wall']:.1f} times by the clock (goal {GOAL_RATIO}), at {best['ours']['peak_mib']:.0f} MiB "
        f"(goal under {GOAL_MIB})."
    )
    content = {"setting": setting, "best": best, "runs": runs, "ratio": ratio}
    report.save("evaluation", options.threads, options.out, content, text)


if __name__ == "__main__":
    main()
