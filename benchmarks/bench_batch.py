"""Users a second of batch recommendation, as a share of what the machine's matrix product allows.

A user costs 2 I H floating-point operations for the scores, at the least; the machine's rate for float32, measured in
the same process, over that is the most users a second there can be. A parquet file is read, raw ids become indices, the
history is encoded, scores are bounded and computed, the best 20 are selected, turned into raw ids and written as
parquet: all of it is timed, for a student with a short history and one with a long one. CPU time of one thread.

The share can pass 100 %: where the processor has VNNI, most scores are only bounded, by 8-bit products. The encoder's
own products are no part of the limit in the column "share"; "with encoder" counts them too, at the same rate.
Item tables are rows of a trained one (`--table RUN/best/model.safetensors`, as in bench_serving.py), else random.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

import machine
import report
import serving_parts as parts
from recdistill.data import Catalogue
from recdistill.export import Recommender
from recdistill.export.answering import Answering, Options
from recdistill.item_encoders import Ids
from recdistill.students import SASRec, SequenceModel

SIZE, TOP = 64, 20
STUDENTS = {"SASRec, paper, L=10": ("paper", 10), "SASRec, modern, L=50": ("modern", 50)}


def recommender(items: int, variant: str, length: int, source: np.ndarray | None = None) -> Recommender:
    random = np.random.default_rng(0)
    rows = (
        random.standard_normal((items, SIZE), np.float32)
        if source is None
        else parts.widened(source, items, random)
    )
    table = Ids.from_table(torch.from_numpy(rows))
    student = SASRec(embedding_size=SIZE, variant=variant, max_length=length)  # type: ignore[arg-type]
    model = SequenceModel(student, table, table, bias=False).eval()
    ids = pl.int_range(items, eager=True).cast(pl.String)
    catalogue = Catalogue(pl.DataFrame({"item_id": ids, "title": ids}))
    return Recommender(model, catalogue, {"student": "sasrec"}, length, "")


def histories(users: int, items: int, length: int, seed: int) -> pl.DataFrame:
    """Return lengths as in shops: most are short, some are longer than the student reads."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(1 / 8, users), 2 * length)
    return pl.DataFrame(
        {"history": [[str(item) for item in rng.integers(items, size=count)] for count in lengths]}
    )


def encoder_operations(answering: Answering, frame: pl.DataFrame) -> float:
    """Return the floating-point operations of the encoder's products for all histories of a frame."""
    with FlopCounterMode(display=False) as counter:
        answering.answer(frame)
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    scores = ("aten.mm", "aten._int_mm")  # the encoder's own maps have biases: aten.addmm
    return float(sum(count for operator, count in counts.items() if operator not in scores))


def job(answering: Answering, folder: Path) -> float:
    """Answer ``in.parquet`` as `recdistill recommend --input` answers a shard; return the CPU seconds."""
    start = time.process_time()
    frame = pl.scan_parquet(folder / "in.parquet").collect()
    answering.answer(frame).write_parquet(folder / "out.parquet")
    return time.process_time() - start


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[17408, 100_000, 1_000_000])
    parser.add_argument("--operations", type=float, default=2e10, help="of the scores, in each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--table", type=Path, help="model.safetensors of a trained run, the source of the tables"
    )
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    source = parts.trained_table(options.table) if options.table else None
    rows, content = [], {"table": str(options.table.name if options.table else "random")}
    for items in options.items:
        for name, (variant, length) in STUDENTS.items():
            users = max(4096, int(options.operations / (2 * items * SIZE)) // 256 * 256)
            answering = Answering(
                recommender(items, variant, length, source), Options(TOP, True, "refuse", 256)
            )
            frame = histories(users, items, length, options.seed)
            seconds, rates = [], []
            with tempfile.TemporaryDirectory() as folder:
                frame.write_parquet(Path(folder) / "in.parquet")
                for _ in range(options.repeats):
                    rates.append(machine.matmul_rate(torch.float32, repeats=2))
                    seconds.append(job(answering, Path(folder)))
            rate = 1e9 * max(rates)
            limit = rate / (2 * items * SIZE)
            both = rate / (2 * items * SIZE + encoder_operations(answering, frame) / users)
            reached = users / min(seconds)
            content[f"{name}, {items}"] = {
                "users_per_second": reached,
                "limit": limit,
                "share": reached / limit,
                "share_with_encoder": reached / both,
            }
            shares = (f"{reached / limit:.0%}", f"{reached / both:.0%}")
            rows.append((name, items, reached, limit, *shares, max(rates)))
    head = ("student", "items", "users/s", "matrix product alone", "share", "with encoder", "GFLOP/s")
    report.save("batch", 1, options.out, content, report.table(head, rows))


if __name__ == "__main__":
    main()
