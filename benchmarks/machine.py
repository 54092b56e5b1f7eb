"""Facts of the machine that every result carries, and the rates it reaches at this moment."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: CPU flags that decide whether bfloat16 is worth it: matrix units, and vector units that can do it.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def matmul_rate(dtype: torch.dtype, *, size: int = 1024, repeats: int = 8) -> float:
    """Return the best GFLOP/s of a square matrix product in a few repeats, with torch's current threads.

    With one thread by CPU time, which a busy neighbour hardly changes; with more by the clock.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        left @ right
        best = min(best, clock() - start)
    return 2 * size**3 / best / 1e9


@cache
def facts(threads: int) -> dict[str, Any]:
    """Return model, flags, versions, load, and matrix-product rates with one and `threads` threads."""
    info = _cpu_info()
    flags = info.get("flags", "").split()
    rates: dict[str, float] = {}
    before = torch.get_num_threads()
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            rates[f"{name}_{count}_threads_gflops"] = round(matmul_rate(dtype), 1)
    torch.set_num_threads(before)
    return {
        "cpu": info.get("model name", platform.processor()),
        "cpus": os.cpu_count(),
        "threads": threads,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "matmul": rates,
    }


def sentence(value: dict[str, Any]) -> str:
    """Return the facts as one line of Markdown."""
    rates = ", ".join(f"{name.replace('_', ' ')} {rate:.0f}" for name, rate in value["matmul"].items())
    return (
        f"{value['cpu']}, {value['cpus']} CPUs, {value['threads']} threads, {' '.join(value['flags'])}; "
        f"torch {value['torch']}; load {value['load_average'][0]}; {rates}"
    )
