"""One user's exact top 20 by the serving engine and over HTTP, against torch and onnxruntime with all scores.

Three catalogues: 17,408, 100,000 and 1,000,000 items. The item tables are not random: they are rows of a trained
table (`--table RUN/best/model.safetensors`, else one trained here on a simulated shop); larger catalogues repeat its
rows with noise of half their spread. Sides run in turn in one process, on one thread:

* torch: encoder, all scores, topk, in eager mode; and the scores and topk alone
* onnxruntime: the one graph of the export, `model.onnx`: encoder, all scores, TopK, seen items left out
* engine: `recdistill.serve.Engine` (8-bit pass with an error bound, float64 re-ranking), seen items left out
* HTTP: the same engine behind `recdistill serve`, one connection, JSON in and out

Beside them: how many of the 20 items agree with torch, memory of a server a million items, import time, a bounded load
test on the loopback, and what RecTools' `recommend` takes (`--rectools-env build/rectools`, see bench_training.py).
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

import report
import serving_parts as parts
from bench_training import make_environment
from recdistill.serve import Engine
from recdistill.serve.sessions import session

LENGTH, HIDDEN, K = 50, 64, 20
#: Calls of one side in a row, as a server answers many requests in a row; then the next side has its turn.
CALLS = 5


def timed(sides: dict[str, Callable[[int], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run the sides in turn; return p50, p99 and minimum of wall time, and the median of CPU time, in ms."""
    walls: dict[str, list[float]] = {name: [] for name in sides}
    cpus: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, repeats // CALLS):
        for name in list(sides) if number % 2 else list(reversed(sides)):
            for call in range(CALLS):
                wall, cpu = time.perf_counter(), time.process_time()
                sides[name]((CALLS * number + call) % 64)
                if number >= 0:
                    walls[name].append(1e3 * (time.perf_counter() - wall))
                    cpus[name].append(1e3 * (time.process_time() - cpu))
    return {
        name: {
            "p50_ms": float(np.percentile(walls[name], 50)),
            "p99_ms": float(np.percentile(walls[name], 99)),
            "min_ms": min(walls[name]),
            "cpu_p50_ms": statistics.median(cpus[name]),
            "cpu_min_ms": min(cpus[name]),
        }
        for name in sides
    }


def one_size(count: int, source: np.ndarray, folder: Path, repeats: int, seed: int) -> dict[str, Any]:
    """Measure one catalogue."""
    random = np.random.default_rng(seed)
    table = parts.widened(source, count, random)
    model = parts.student(table, LENGTH)
    parts.write_export(folder, model, table, LENGTH)
    engine = Engine.load(folder)
    histories = [random.integers(0, count, LENGTH) for _ in range(64)]
    grids = [torch.from_numpy(history[None]) for history in histories]
    unfused = session((folder / "model.onnx").read_bytes(), 1)
    options = {"k": np.array(K, dtype=np.int64), "exclude_seen": np.array(True)}
    with torch.no_grad():
        hidden = [model.encode(grid, torch.tensor([LENGTH])) for grid in grids]
        vectors = model.output_encoder(None)

        def eager(number: int) -> torch.Tensor:
            return model.score(grids[number]).topk(K).indices

        server = parts.server(folder)
        try:
            client = httpx.Client(base_url=server.url, timeout=60)
            bodies = [
                json.dumps({"history": [f"id-{item}" for item in history], "k": K}).encode()
                for history in histories
            ]
            sides: dict[str, Callable[[int], object]] = {
                "torch eager": eager,
                "torch, scores and topk alone": lambda number: (hidden[number] @ vectors.T).topk(K),
                "torch, encoder alone": lambda number: model.encode(grids[number], torch.tensor([LENGTH])),
                "onnxruntime, unfused": lambda number: unfused.run(
                    None, {"history": grids[number].numpy(), **options}
                ),
                "engine": lambda number: engine.recommend([histories[number]], K),
                "engine, encoder alone": lambda number: engine.encode([histories[number]]),
                "HTTP": lambda number: (
                    client.post("/recommend", content=bodies[number], headers=parts.JSON).content
                ),
            }
            times = timed(sides, repeats)
            memory = server.memory_mib()
        finally:
            server.stop()
        exact = [
            len(
                set(engine.recommend([histories[n]], K, exclude_seen=False)[0].items.tolist())
                & set(eager(n)[0].tolist())
            )
            for n in range(64)
        ]
        left = [
            len(engine._scorer.prefilter.candidates(engine.encode([history]), K, [np.zeros(0, np.int64)])[0])
            for history in histories
        ]
    return {
        "items": count,
        "times": times,
        "overlap_min": min(exact),
        "overlap_mean": float(np.mean(exact)),
        "candidates_mean": float(np.mean(left)),
        "server_mib": memory,
    }


def import_times(repeats: int = 3) -> dict[str, float]:
    """Return CPU and smallest wall seconds of fresh processes that import the serving part."""
    codes = {
        "python": "pass",
        "engine": "import recdistill.serve.engine",
        "engine and onnxruntime": "import recdistill.serve.engine, onnxruntime",
        "server": "import recdistill.serve.app, onnxruntime, uvicorn",
    }
    found = {}
    for name, code in codes.items():
        walls, cpus = [], []
        for _ in range(repeats):
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            walls.append(time.perf_counter() - start)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        found[f"{name}, wall min s"], found[f"{name}, CPU min s"] = min(walls), min(cpus)
    return found


def load_test(folder: Path, seconds: float, clients: int) -> dict[str, float]:
    """Let some clients ask without pause, on the loopback, for a bounded time."""
    server = parts.server(folder)
    waits: list[float] = []
    errors: list[int] = []
    stop = time.monotonic() + seconds

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while time.monotonic() < stop:
                history = [f"id-{item}" for item in random.integers(0, 17_000, random.integers(1, 80))]
                start = time.perf_counter()
                answer = client.post("/recommend", json={"history": history, "k": K})
                waits.append(1e3 * (time.perf_counter() - start))
                if answer.status_code != 200:
                    errors.append(answer.status_code)

    try:
        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 4)
        early = server.memory_mib()
        for thread in threads:
            thread.join()
        late = server.memory_mib()
    finally:
        server.stop()
    return {
        "seconds": seconds,
        "clients": clients,
        "requests": len(waits),
        "errors": len(errors),
        "p50_ms": float(np.percentile(waits, 50)),
        "p99_ms": float(np.percentile(waits, 99)),
        "memory_after_a_quarter_mib": early,
        "memory_at_the_end_mib": late,
    }


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[17_408, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument(
        "--table", type=Path, help="model.safetensors of a trained run, the source of the tables"
    )
    parser.add_argument("--load-seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rectools-python", type=Path, help="a Python with RecTools, see bench_training.py")
    parser.add_argument("--rectools-env", type=Path, help="folder of RecTools' environment, made if missing")
    options = parser.parse_args()
    python = make_environment(options.rectools_env) if options.rectools_env else options.rectools_python
    torch.set_num_threads(1)
    source = parts.trained_table(options.table)
    content: dict[str, Any] = {"source": str(options.table or "simulated shop"), "sizes": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in options.items:
            repeats = max(20, options.repeats // (1 if count < 50_000 else 2 if count < 500_000 else 5))
            content["sizes"].append(one_size(count, source, folder / f"rec-{count}", repeats, options.seed))
        content["import"] = import_times()
        content["load"] = load_test(folder / f"rec-{options.items[0]}", options.load_seconds, options.clients)
    if python:
        content["rectools"] = parts.rectools(python, options.items[0], LENGTH, HIDDEN, K)
    report.save("serving", options.threads, options.out, content, _markdown(content))


def _markdown(content: dict[str, Any]) -> str:
    rows = []
    for size in content["sizes"]:
        base = size["times"]["torch eager"]
        for side, one in size["times"].items():
            ratios = (base["p50_ms"] / one["p50_ms"], base["min_ms"] / one["min_ms"])
            rows.append(
                (size["items"], side, one["p50_ms"], one["p99_ms"], one["min_ms"], one["cpu_min_ms"], *ratios)
            )
    head = ("items", "side", "p50 ms", "p99 ms", "min ms", "CPU min ms", "torch eager / it, p50", "by minima")
    text = report.table(head, rows)
    for size in content["sizes"]:
        text += (
            f"\n\n{size['items']:,} items: of torch's {K} the engine has, least of 64 users, {size['overlap_min']}; "
            f"{size['candidates_mean']:.0f} candidates left by the 8-bit pass; server {size['server_mib']:.0f} MiB."
        )
    load = content["load"]
    text += (
        f"\n\nLoad: {load['clients']} clients, {load['seconds']:.0f} s, {load['requests']:,} requests, "
        f"{load['errors']} errors, p50 {load['p50_ms']:.1f} ms, p99 {load['p99_ms']:.1f} ms; memory "
        f"{load['memory_after_a_quarter_mib']:.0f} MiB after a quarter, {load['memory_at_the_end_mib']:.0f} at the end."
    )
    text += "\n\n" + report.table(("import", "seconds"), list(content["import"].items()))
    if "rectools" in content:
        theirs, ours = content["rectools"], content["sizes"][0]["times"]["engine"]
        ratios = [f"{theirs[one] / ours[one]:.0f}" for one in ("p50_ms", "min_ms")]
        asked = f"one user, {content['sizes'][0]['items']:,} items"
        took = f"p50 {theirs['p50_ms']:.2f} ms, min {theirs['min_ms']:.2f} ms"
        text += f"\n\nRecTools `recommend`, {asked}: {took}; the engine is {ratios[0]} times as fast"
        text += f" (by minima {ratios[1]})."
    return text


if __name__ == "__main__":
    main()
