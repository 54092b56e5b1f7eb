"""All benchmarks, one after the other, each in a process of its own; `make bench` calls this.

Writes one JSON file a benchmark and `summary.md` into the result folder. The small sizes take a few minutes
on two cores; `--full` takes the sizes of the goals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from report import RESULTS

HERE = Path(__file__).parent
#: Benchmark: options at the small sizes, options at the full ones.
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "startup": ([], []),
    "step": (["--repeats", "3"], ["--repeats", "10"]),
    "training": (["--steps", "4", "--repeats", "1"], ["--steps", "8", "--repeats", "3"]),
    "strategies": (["--repeats", "2", "--rows", "4000"], ["--repeats", "8"]),
    "products": (["--repeats", "5"], ["--repeats", "20"]),
    "evaluation": (["--rows", "2000", "--repeats", "1"], ["--rows", "15000", "--repeats", "2"]),
    "inference": (["--repeats", "20"], ["--repeats", "60"]),
    "batch": (["--items", "17408", "--repeats", "3"], ["--repeats", "8"]),
    "serving": (
        ["--items", "17408", "100000", "--repeats", "60", "--load-seconds", "5"],
        ["--repeats", "400", "--load-seconds", "60"],
    ),
    "generation": (["--repeats", "1"], ["--rows", "264", "--beam-rows", "88", "--repeats", "3"]),
    "grounding": ([], ["--full"]),
    "memory": (
        ["--rows", "50000", "100000", "150000", "--items", "10000", "20000", "30000"],
        ["--rows", "100000", "200000", "300000", "--items", "20000", "40000", "60000"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Run all benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones: {', '.join(BENCHMARKS)}")
    parser.add_argument("--full", action="store_true", help="the sizes of the goals")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rectools-python", type=Path, help="see bench_training.py")
    parser.add_argument("--rectools-env", type=Path, help="see bench_training.py")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"unknown benchmark {unknown[0]!r}. Allowed: {', '.join(BENCHMARKS)}.")
    failed = [name for name in options.names or BENCHMARKS if not _run(name, options)]
    summary = options.out / "summary.md"
    summary.write_text("# Benchmarks\n\n" + "\n".join(_texts(options.out)), encoding="utf-8")
    sys.stdout.write(f"\nwritten: {summary}\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _run(name: str, options: argparse.Namespace) -> bool:
    start = time.perf_counter()
    command = [sys.executable, str(HERE / f"bench_{name}.py"), *BENCHMARKS[name][options.full]]
    command += ["--out", str(options.out), "--threads", str(options.threads)]
    if name in ("training", "serving"):
        for option in ("rectools_python", "rectools_env"):
            if value := getattr(options, option):
                command += [f"--{option.replace('_', '-')}", str(value)]
    done = subprocess.run(command, check=False)
    sys.stdout.write(f"({name}: {time.perf_counter() - start:.0f} s)\n\n")
    sys.stdout.flush()
    return done.returncode == 0


def _texts(out: Path) -> list[str]:
    results = [out / f"{name}.json" for name in BENCHMARKS]
    return [json.loads(path.read_text(encoding="utf-8"))["markdown"] for path in results if path.exists()]


if __name__ == "__main__":
    main()
