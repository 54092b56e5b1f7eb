"""Users a second of batch recommendation, as a share of what the machine's matrix product allows.

A user costs 2 I H floating-point operations for the scores, at the least; the machine's rate for float32, measured in
the same process, over that is the most users a second there can be. Raw ids are read, the history is encoded, scores
are computed, the best 20 are selected and turned into raw ids: all of it is timed, for a student with a short history
and one with a long one, with random tables. CPU time of one thread.
"""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import torch

import machine
import report
from recdistill.data import Catalogue
from recdistill.export import Recommender
from recdistill.export.answering import Answering, Options
from recdistill.item_encoders import Ids
from recdistill.students import SASRec, SequenceModel

SIZE, TOP = 64, 20
STUDENTS = {"SASRec, paper, L=10": ("paper", 10), "SASRec, modern, L=50": ("modern", 50)}


def recommender(items: int, variant: str, length: int) -> Recommender:
    table = Ids.from_table(torch.randn(items, SIZE))
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


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[17408, 100_000, 1_000_000])
    parser.add_argument("--operations", type=float, default=4e10, help="of the scores, in each measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    rows, content = [], {}
    for items in options.items:
        for name, (variant, length) in STUDENTS.items():
            users = max(256, int(options.operations / (2 * items * SIZE)) // 256 * 256)
            answering = Answering(recommender(items, variant, length), Options(TOP, True, "refuse", 256))
            frame = histories(users, items, length, options.seed)
            seconds, rates = [], []
            for _ in range(options.repeats):
                rates.append(machine.matmul_rate(torch.float32, repeats=2))
                start = time.process_time()
                answering.answer(frame)
                seconds.append(time.process_time() - start)
            limit = 1e9 * max(rates) / (2 * items * SIZE)
            reached = users / min(seconds)
            content[f"{name}, {items}"] = {
                "users_per_second": reached,
                "limit": limit,
                "share": reached / limit,
            }
            rows.append((name, items, reached, limit, f"{reached / limit:.0%}", max(rates)))
    head = ("student", "items", "users/s", "matrix product alone", "share", "GFLOP/s")
    report.save("batch", 1, options.out, content, report.table(head, rows))


if __name__ == "__main__":
    main()
