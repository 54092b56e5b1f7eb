"""How time and memory are measured here.

Other jobs may share the machine, so a single wall time says little. Sides of a comparison are run in turn
(a, b, a, b ...) in one process, the smallest wall time of the repeats counts, and beside it stands the CPU
time with one thread (`time.process_time` after `torch.set_num_threads(1)`), which a busy neighbour hardly
changes. Memory is the peak resident size of a fresh process (`resource.getrusage`).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

#: Every size that glibc would map anew (and fault in page by page) on each call.
MALLOC_TUNED = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}


@dataclass
class Timing:
    """Times of the repeats of one side, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, float]:
        """Smallest and median wall time and CPU time in milliseconds."""
        return {
            "wall_min_ms": 1e3 * min(self.wall),
            "wall_median_ms": 1e3 * statistics.median(self.wall),
            "cpu_min_ms": 1e3 * min(self.cpu),
            "cpu_median_ms": 1e3 * statistics.median(self.cpu),
        }


def interleave(
    sides: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 2,
    threads: int = 1,
    calls: Mapping[str, int] | None = None,
) -> dict[str, Timing]:
    """Run the sides in turn, `repeats` rounds after `warmup` rounds that are not counted.

    The order turns round from one round to the next, so that no side always follows the same neighbour.
    A side named in `calls` is called, and timed, that many times a round: short work needs more samples.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    timings = {name: Timing() for name in sides}
    try:
        for repeat in range(-warmup, repeats):
            gc.collect()
            for name in list(sides) if repeat % 2 else list(reversed(sides)):
                for _ in range((calls or {}).get(name, 1)):
                    wall, cpu = time.perf_counter(), time.process_time()
                    sides[name]()
                    if repeat >= 0:
                        timings[name].wall.append(time.perf_counter() - wall)
                        timings[name].cpu.append(time.process_time() - cpu)
    finally:
        torch.set_num_threads(before)
    return timings


def compare(
    sides: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    threads: int,
    warmup: int = 2,
    calls: Mapping[str, int] | None = None,
) -> dict[str, dict[str, float]]:
    """Return for each side CPU time with one thread and wall time with one and with `threads` threads."""
    single = interleave(sides, repeats=repeats, warmup=warmup, threads=1, calls=calls)
    several = single
    if threads > 1:
        several = interleave(sides, repeats=repeats, warmup=1, threads=threads, calls=calls)
    return {
        name: {
            "cpu_1_thread_ms": single[name].summary["cpu_min_ms"],
            "cpu_1_thread_median_ms": single[name].summary["cpu_median_ms"],
            "wall_1_thread_ms": single[name].summary["wall_min_ms"],
            "wall_min_ms": several[name].summary["wall_min_ms"],
            "wall_median_ms": several[name].summary["wall_median_ms"],
        }
        for name in sides
    }


def peak_rss_mib() -> float:
    """Return the peak resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def in_subprocess(
    arguments: Sequence[str | Path],
    *,
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
    timeout: float = 1800,
) -> dict[str, Any]:
    """Run a script in a fresh process and return the JSON object on the last line of its output.

    Raises
    ------
    RuntimeError
        The script failed; the message ends with what it wrote to stderr.
    """
    done = subprocess.run(
        [str(python), *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def available_mib() -> float:
    """Return the memory that can be used without swapping, in MiB (0 where the system does not say)."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return 0.0
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) / 1024
