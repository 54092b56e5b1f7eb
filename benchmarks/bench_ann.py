"""Approximate search (HNSW of usearch and of faiss) against the engine's exact top 20, on a trained table.

Vectors are the rows of a trained run's item table (for more items repeated with noise, as in bench_serving.py), queries
the hidden states of that run after real histories. The inner product becomes a distance by one more coordinate,
sqrt(M^2 - |v|^2), which is 0 in the query (Bachrach et al., RecSys 2014); graphs of inner products themselves found a
tenth of the items. Each graph is asked with a growing search width until it names 99 % of the exact 20
best; the time beside it is that of the first width which does. One thread, single queries, all sides in turn.

Needs `pip install usearch faiss-cpu`; a side whose package is missing is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import report
import serving_parts as parts
from recdistill.data import SequenceDataset
from recdistill.export import Recommender
from recdistill.serve.scorer import Scorer
from recdistill.serve.table import ItemTable

K, QUERIES, GOAL = 20, 200, 0.99
WIDTHS = (20, 32, 64, 128, 256, 512, 1024, 2048)
LINKS, BUILD_WIDTH = 16, 64
Search = Callable[[np.ndarray], np.ndarray]


def usearch_index(table: np.ndarray) -> tuple[Any, Callable[[int], Search]]:
    from usearch.index import Index

    index = Index(
        ndim=table.shape[1], metric="l2sq", dtype="f32", connectivity=LINKS, expansion_add=BUILD_WIDTH
    )
    index.add(np.arange(len(table)), table, threads=1)

    def at(width: int) -> Search:
        def search(query: np.ndarray) -> np.ndarray:
            index.expansion_search = width
            return np.asarray(index.search(np.append(query, np.float32(0)), K, threads=1).keys)

        return search

    return index, at


def faiss_index(table: np.ndarray) -> tuple[Any, Callable[[int], Search]]:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(table.shape[1], LINKS)
    index.hnsw.efConstruction = BUILD_WIDTH
    index.add(table)

    def at(width: int) -> Search:
        def search(query: np.ndarray) -> np.ndarray:
            index.hnsw.efSearch = width
            return np.asarray(index.search(np.append(query, np.float32(0))[None], K)[1][0])

        return search

    return index, at


def lifted(table: np.ndarray) -> np.ndarray:
    """Return ``(I, H + 1)`` vectors of one length; the nearest to ``[query, 0]`` have the largest inner products."""
    squares = np.square(table).sum(1, keepdims=True)
    return np.concatenate([table, np.sqrt(squares.max() - squares)], axis=1)


def overlap(search: Search, queries: np.ndarray, exact: list[set[int]]) -> float:
    """Return the mean share of the exact items that a search names."""
    return float(np.mean([len(set(search(q).tolist()) & e) / K for q, e in zip(queries, exact, strict=True)]))


def timed(sides: dict[str, Search], queries: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of single queries, the sides in turn."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name, search in sides.items():
            for query in queries[:20]:
                start = time.perf_counter()
                search(query)
                if number >= 0:
                    found[name].append(1e3 * (time.perf_counter() - start))
    return found


def one_size(table: np.ndarray, queries: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    scorer = Scorer(ItemTable(table))
    exact = [set(scorer.top(query[None], K)[0].items.tolist()) for query in queries]
    sides: dict[str, Search] = {"exact": lambda query: scorer.top(query[None], K)[0].items}
    facts: dict[str, dict[str, Any]] = {"exact": {"overlap": 1.0, "width": None, "build_s": None}}
    for name, make in (("usearch", usearch_index), ("faiss", faiss_index)):
        start = time.process_time()
        try:
            _, at = make(lifted(table))
        except ImportError:
            continue
        built = time.process_time() - start
        for width in WIDTHS:
            reached = overlap(at(width), queries, exact)
            if reached >= GOAL or width == WIDTHS[-1]:
                break
        print(f"{len(table):,} items: {name} names {reached:.1%} at a search width of {width}", flush=True)
        sides[name], facts[name] = at(width), {"overlap": reached, "width": width, "build_s": built}
    times = timed(sides, queries, rounds)
    return [
        {"side": name, **facts[name], "p50_ms": float(np.median(times[name])), "min_ms": min(times[name])}
        for name in sides
    ]


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a student")
    parser.add_argument(
        "--dataset", type=Path, required=True, help="its dataset: histories of its test rows are asked"
    )
    parser.add_argument("--items", type=int, nargs="+", default=[17_408, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recommender, data = Recommender.load(options.run), SequenceDataset.load(options.dataset)
    rows = data.rows("test")
    some = rows[np.linspace(0, len(rows) - 1, QUERIES).astype(np.int64)]
    grid = torch.from_numpy(data.histories(some, recommender.length))
    with torch.no_grad():
        hidden = recommender.model.encode(grid, (grid >= 0).sum(1)).numpy()
        source = recommender.model.output_encoder.table().numpy()
    content: dict[str, Any] = {}
    lines = []
    for count in options.items:
        table = parts.widened(source, count, np.random.default_rng(options.seed))
        content[str(count)] = one_size(table, hidden, options.rounds)
        lines += [(count, *one.values()) for one in content[str(count)]]
    head = ("items", "side", "overlap", "search width", "build CPU s", "p50 ms", "min ms")
    report.save("ann", 1, options.out, content, report.table(head, lines))


if __name__ == "__main__":
    main()
