"""Grounding: how fast the catalogue is ranked by distance, against this machine's matrix product.

Queries and items are random vectors with a large common mean, as those of language models have; every tenth item
has the vector of the item behind it. The work that cannot be avoided is ``2 N I D`` operations. The rate is that
divided by the time of everything that grounding does (centring, top-k, exact distances, target ranks); the share is
the rate divided by that of a square float32 matrix product, the best of some before and some after, in the same
process. Extra memory is the growth of the peak resident size while grounding, in a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch

import machine
import measure
import report

#: Share of the matrix rate, and MiB, that are the goal.
GOAL_SHARE, GOAL_MIB = 0.6, 1024


def inputs(size: dict[str, int]) -> tuple[Any, Any, Any, Any]:
    """Return queries, items, targets and the pairs of the histories."""
    rng = np.random.default_rng(size["seed"])
    items = rng.standard_normal((size["items"], size["width"]), dtype=np.float32) + 4
    items[:-1:10] = items[1::10]
    queries = rng.standard_normal((size["queries"], size["width"]), dtype=np.float32) + 4
    targets = rng.integers(0, size["items"], size["queries"])
    seen = np.repeat(np.arange(size["queries"]), 10), rng.integers(0, size["items"], 10 * size["queries"])
    return queries, items, targets, seen


def run_once(size: dict[str, int]) -> dict[str, float]:
    """Ground once at the given size; return rates in GFLOP/s, seconds and MiB."""
    from recdistill.teachers.grounding.grounder import Grounder

    torch.set_num_threads(size["threads"])
    queries, items, targets, seen = inputs(size)
    matrix = [machine.matmul_rate(torch.float32)]
    clock = time.process_time if size["threads"] == 1 else time.perf_counter
    before, start = measure.peak_rss_mib(), clock()
    grounder = Grounder(items, device="cpu")
    grounder.ground(queries, targets, seen, top_k=size["top_k"])
    seconds = clock() - start
    peak = measure.peak_rss_mib()
    matrix.append(machine.matmul_rate(torch.float32))
    work = 2 * size["queries"] * size["items"] * size["width"]
    return {
        "seconds": seconds,
        "gflops": work / seconds / 1e9,
        "matrix_gflops": max(matrix),
        "share": work / seconds / 1e9 / max(matrix),
        "extra_mib": peak - before,
    }


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "one":
        sys.stdout.write(json.dumps(run_once(json.loads(sys.argv[2]))) + "\n")
        return
    parser = report.parser(__doc__)
    parser.add_argument("--queries", type=int, default=1500)
    parser.add_argument("--items", type=int, default=17_408)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--full", action="store_true", help="15,000 queries, 17,408 items, 4,096 dimensions")
    options = parser.parse_args()
    size = {
        name: getattr(options, name) for name in ("queries", "items", "width", "top_k", "threads", "seed")
    }
    if options.full:
        size |= {"queries": 15_000, "items": 17_408, "width": 4096}
    found = {
        threads: measure.in_subprocess([__file__, "one", json.dumps({**size, "threads": threads})])
        for threads in sorted({1, options.threads})
    }
    rows = [
        (threads, f["seconds"], f["gflops"], f["matrix_gflops"], f["share"], round(f["extra_mib"]))
        for threads, f in found.items()
    ]
    head = ("threads", "seconds", "GFLOP/s", "matrix product GFLOP/s", "share", "extra MiB")
    text = (
        f"{size['queries']:,} queries, {size['items']:,} items, {size['width']:,} dimensions, top {size['top_k']}, "
        f"target ranks and distances. Goals: share at least {GOAL_SHARE}, extra memory under {GOAL_MIB:,} MiB.\n\n"
        + report.table(head, rows)
        + "\n\nOne thread by CPU time, more by the clock."
    )
    content = {"size": size, "threads": {str(k): v for k, v in found.items()}}
    report.save("grounding", options.threads, options.out, content, text)


if __name__ == "__main__":
    main()
