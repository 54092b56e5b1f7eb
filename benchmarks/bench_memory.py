"""Peak memory of a whole run at three sizes of rows and three of items: it must grow along a line.

Each size is one fresh process that makes data and a teacher, trains one epoch of DLLM2Rec with
`recdistill.train.distill`, validates and saves. Three equally spaced sizes: on a line the two increments are
equal, so their ratio is the test. The slope is compared with the bytes that one row, or one item, brings in.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import measure
import report
import synthetic

LENGTH = 10


def run_once(options: dict[str, int]) -> dict[str, float]:
    """Train one epoch at the given size; return the peak resident size and the seconds it took."""
    from ours import paper_sasrec
    from recdistill.losses import DROS
    from recdistill.strategies import Importance
    from recdistill.train import TrainOptions, distill

    torch.set_num_threads(options["threads"])
    dataset = synthetic.windows(
        options["rows"], options["items"], length=LENGTH, seed=options["seed"], validation=2000
    )
    knowledge = synthetic.teacher(dataset, size=options["width"], listed=options["listed"])
    assert knowledge.item_embeddings is not None
    model = paper_sasrec(dataset.item_count, knowledge.item_embeddings, length=LENGTH)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        distill(
            dataset,
            model,
            DROS(alpha=0.5),
            [(0.7, Importance(variant="corrected"))],
            knowledge,
            out=Path(folder) / "run",
            spec={"student": "sasrec", "options": {"variant": "paper", "max_length": LENGTH}},
            options=TrainOptions(epochs=1),
            length=LENGTH,
            batch_size=options["batch_size"],
        )
    return {"peak_mib": measure.peak_rss_mib(), "seconds": time.perf_counter() - start}


def series(name: str, sizes: list[int], common: dict[str, int]) -> dict[str, Any]:
    """Measure one run a size; return the points, the slope in bytes and the ratio of the two increments."""
    points = []
    for size in sizes:
        setting = json.dumps({**common, name: size})
        points.append({name: size, **measure.in_subprocess([Path(__file__), "one", setting])})
    peaks = [point["peak_mib"] for point in points]
    slope = (peaks[-1] - peaks[0]) * 2**20 / (sizes[-1] - sizes[0])
    return {"points": points, "bytes_each": slope, "increments": [peaks[1] - peaks[0], peaks[2] - peaks[1]]}


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "one":
        sys.stdout.write(json.dumps(run_once(json.loads(sys.argv[2]))) + "\n")
        return
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs=3, default=[100_000, 200_000, 300_000])
    parser.add_argument("--items", type=int, nargs=3, default=[20_000, 40_000, 60_000])
    options = parser.parse_args()
    common = {"threads": 1, "seed": options.seed}  # memory does not depend on the threads
    by_rows = series(
        "rows",
        options.rows,
        {**common, "items": 2000, "width": 256, "listed": 100, "batch_size": 4096},
    )
    by_items = series(
        "items",
        options.items,
        {**common, "rows": 4000, "width": 1024, "listed": 10, "batch_size": 256},
    )
    rows = []
    for name, found in (("rows", by_rows), ("items", by_items)):
        for point in found["points"]:
            rows.append((name, point[name], round(point["peak_mib"]), point["seconds"]))
    text = report.table(("grows", "size", "peak MiB", "seconds"), rows)
    for name, found in (("A row", by_rows), ("An item", by_items)):
        first, second = found["increments"]
        each = f"{found['bytes_each']:,.0f} bytes"
        text += f"\n\n{name} costs {each}; the two increments are {first:.0f} and {second:.0f} MiB."
    report.save("memory", options.threads, options.out, {"rows": by_rows, "items": by_items}, text)


if __name__ == "__main__":
    main()
