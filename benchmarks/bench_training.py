"""Training throughput in targets per second, ours against RecTools' SASRec, at MovieLens-1M shapes.

6,040 users, 3,416 items, histories of 50, batches of 128, d = 64, two blocks: full softmax and BCE with one
negative. RecTools lives in its own environment (`requirements-rectools.txt`); fresh processes of the two
sides run in turn and train on the same made sequences. A step is timed from the end of one to the end of the
next, so that collating is in it on both sides. Both get the same widths (feed-forward part d, as RecTools).

    python benchmarks/bench_training.py --rectools-env build/rectools     # makes the environment if needed
    python benchmarks/bench_training.py --rectools-python /path/to/bin/python
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import report
import synthetic
from measure import in_subprocess

HERE = Path(__file__).parent
GOALS = {"ce": 4.0, "bce": 1.3}
#: Ours: the softmax also with its products in bfloat16; at d = 64 nothing else of the step gains from it.
VARIANTS = {"ce": ("float32", "bfloat16"), "bce": ("float32",)}
SHAPE: dict[str, Any] = {
    "blocks": 2,
    "heads": 2,
    "size": 64,
    "dropout": 0.2,
    "length": 50,
    "batch_size": 128,
    "expansion": 1,
    "warmup": 2,
}


def our_side(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return step times and targets of each loss, format of the softmax's products and number of threads."""
    arrays = np.load(path)
    dataset = synthetic.dataset_of(arrays["events"], arrays["offsets"], int(arrays["items"]))
    result = {}
    for loss in options["losses"]:
        for dtype in VARIANTS[loss]:
            for threads in options["threads"]:
                torch.set_num_threads(threads)
                torch.manual_seed(options["seed"])
                result[f"{loss} {dtype} {threads}"] = _steps(dataset, loss, dtype, options)
    return result


def _steps(dataset: Any, loss: str, dtype: str, options: dict[str, Any]) -> dict[str, Any]:
    from ours import Steps, modern_sasrec
    from recdistill.losses import BCE, CE
    from recdistill.train import BatchLoader, TrainOptions

    model = modern_sasrec(
        dataset.item_count,
        length=options["length"],
        expansion=options["expansion"],
        heads=options["heads"],
        dropout=options["dropout"],
    )
    chosen = CE(dtype=dtype) if loss == "ce" else BCE()  # type: ignore[arg-type]
    loader = BatchLoader(
        dataset, "all", options["length"], options["batch_size"], negatives=int(chosen.needs_negatives)
    )
    steps = Steps(dataset, model, chosen, [], None, loader, TrainOptions())
    for _ in range(options["warmup"]):
        steps()
    walls, cpus, targets = [], [], []
    for _ in range(options["steps"]):
        wall, cpu = time.perf_counter(), time.process_time()
        steps()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        targets.append(steps.targets)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"wall_s": walls, "cpu_s": cpus, "targets": targets, "parameters": parameters}


def make_environment(folder: Path) -> Path:
    """Make RecTools' environment in `folder` if it is not there; return its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, "--requirement", str(HERE / "requirements-rectools.txt")], check=True)
    return python


def rates(run: dict[str, Any]) -> dict[str, float]:
    """Return the best and the median targets per second of one run, by wall and by CPU time."""
    wall = np.array(run["targets"]) / np.array(run["wall_s"])
    cpu = np.array(run["targets"]) / np.array(run["cpu_s"])
    return {
        "wall_best": float(wall.max()),
        "wall_median": float(np.median(wall)),
        "cpu_best": float(cpu.max()),
        "cpu_median": float(np.median(cpu)),
    }


def best_of(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return for each setting the best rates over the runs of one side."""
    return {
        name: {key: max(rates(run[name])[key] for run in runs) for key in rates(runs[0][name])}
        for name in runs[0]
    }


def main() -> None:
    if len(sys.argv) > 3 and sys.argv[1] == "ours":
        sys.stdout.write(json.dumps(our_side(sys.argv[2], json.loads(sys.argv[3]))) + "\n")
        return
    parser = report.parser(__doc__)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--items", type=int, default=3416)
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each run")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side, in turn")
    parser.add_argument("--losses", nargs="+", default=["ce", "bce"], choices=["ce", "bce"])
    parser.add_argument(
        "--rectools-python", type=Path, help="interpreter of an environment that has RecTools"
    )
    parser.add_argument("--rectools-env", type=Path, help="folder of RecTools' environment, made if missing")
    options = parser.parse_args()
    python = make_environment(options.rectools_env) if options.rectools_env else options.rectools_python
    dataset = synthetic.users(options.users, options.items, mean=165, longest=2300, seed=options.seed)
    setting = {
        **SHAPE,
        "losses": options.losses,
        "steps": options.steps,
        "seed": options.seed,
        "threads": sorted({1, options.threads}),
    }
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.npz"
        np.savez(path, events=dataset.events, offsets=dataset.offsets, items=np.int64(options.items))
        for _ in range(options.repeats):
            if python is not None:
                argument = json.dumps(setting)
                theirs.append(in_subprocess([HERE / "rectools_side.py", path, argument], python=python))
            ours.append(in_subprocess([Path(__file__), "ours", path, json.dumps(setting)]))
    summary = {"ours": best_of(ours), "rectools": best_of(theirs) if theirs else None}
    text, ratios = _table(summary, options.losses, options.threads)
    content = {
        "setting": setting,
        "summary": summary,
        "ratios": ratios,
        "runs": {"ours": ours, "rectools": theirs},
    }
    report.save("training", options.threads, options.out, content, text)


def _table(summary: dict[str, Any], losses: list[str], threads: int) -> tuple[str, dict[str, float]]:
    rows, ratios = [], {}
    peer = summary["rectools"]
    for loss in losses:
        base = None
        if peer:
            base = (peer[f"{loss} 1"]["cpu_best"], peer[f"{loss} {threads}"]["wall_best"])
            rows.append((loss, "RecTools float32", base[0], base[1], 1.0, 1.0, None))
        for dtype in VARIANTS[loss]:
            cpu = summary["ours"][f"{loss} {dtype} 1"]["cpu_best"]
            wall = summary["ours"][f"{loss} {dtype} {threads}"]["wall_best"]
            ratio = (cpu / base[0], wall / base[1]) if base else (None, None)
            rows.append((loss, f"ours {dtype}", cpu, wall, *ratio, GOALS[loss]))
            if base:
                ratios[f"{loss} {dtype}"] = cpu / base[0]
    head = (
        "loss",
        "side",
        "targets/s, 1 thread CPU",
        f"targets/s, wall, {threads} threads",
        "ratio CPU",
        "ratio wall",
        "goal",
    )
    text = report.table(head, rows)
    if not peer:
        text += "\n\nRecTools was not measured: pass --rectools-env build/rectools (made once)."
    return text, ratios


if __name__ == "__main__":
    main()
