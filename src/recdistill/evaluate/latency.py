"""How long a call takes, so that a neighbour on the machine does not decide the comparison.

Wall time is what a user waits; CPU time with one thread is what the work costs, and hardly moves when the
machine is busy. Calls that are to be compared take turns within one process, in an order that changes from
round to round, and the ratio is the median of the rounds' ratios: a slow moment hits both sides.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError

Floats = npt.NDArray[np.float64]
Call = Callable[[], Any]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call.

    Attributes
    ----------
    p50, p99
        Wall time.
    cpu_p50, cpu_p99
        CPU time of the process, one thread.
    repeats
        Number of timed calls.
    """

    p50: float
    p99: float
    cpu_p50: float
    cpu_p99: float
    repeats: int


@dataclass(frozen=True)
class LatencyComparison:
    """Several calls measured in turns.

    Attributes
    ----------
    latencies
        Name → latency.
    reference
        The name whose time is 1 in the ratios.
    ratios
        Name → CPU time over the reference's, median over the rounds.
    wall_ratios
        The same for wall time.
    """

    latencies: Mapping[str, Latency]
    reference: str
    ratios: Mapping[str, float]
    wall_ratios: Mapping[str, float]


def measure_latency(call: Call, *, repeats: int = 200, warmup: int = 10) -> Latency:
    """Measure one call, single-threaded.

    Parameters
    ----------
    call
        Called without arguments.
    repeats
        Timed calls, at least 1; a p99 wants some hundreds.
    warmup
        Calls before the clock starts.

    Raises
    ------
    ConfigError
        `repeats` is below 1.
    """
    return compare_latency({"call": call}, repeats=repeats, warmup=warmup).latencies["call"]


def compare_latency(
    calls: Mapping[str, Call],
    repeats: int = 200,
    *,
    reference: str | None = None,
    warmup: int = 10,
    seed: int = 0,
) -> LatencyComparison:
    """Measure several calls in turns within one process, single-threaded.

    Parameters
    ----------
    calls
        Name → call without arguments.
    repeats
        Rounds; every call is timed once a round.
    reference
        The call whose time the others are divided by; the first by default.
    warmup
        Untimed rounds before.
    seed
        Seed of the order within the rounds.

    Raises
    ------
    ConfigError
        There is no call, the reference is not among them, or `repeats` is below 1.
    """
    names = list(calls)
    if not names or repeats < 1 or (reference is not None and reference not in calls):
        raise ConfigError(
            f"cannot compare {names or 'no calls'} with reference {reference!r} in {repeats} rounds; at "
            "least one call, a reference among the calls and one round are needed. Correct the arguments."
        )
    reference = names[0] if reference is None else reference
    wall, cpu = _timed_rounds(list(calls.values()), repeats, warmup, seed)
    base = names.index(reference)
    return LatencyComparison(
        latencies={name: _latency(wall[:, k], cpu[:, k]) for k, name in enumerate(names)},
        reference=reference,
        ratios={name: float(np.median(cpu[:, k] / cpu[:, base])) for k, name in enumerate(names)},
        wall_ratios={name: float(np.median(wall[:, k] / wall[:, base])) for k, name in enumerate(names)},
    )


@contextmanager
def single_thread() -> Iterator[None]:
    """Let BLAS, OpenMP and with them torch and numpy use one thread within the block."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def _timed_rounds(calls: list[Call], repeats: int, warmup: int, seed: int) -> tuple[Floats, Floats]:
    """Return wall and CPU milliseconds, each ``(repeats, calls)``."""
    rng = np.random.default_rng(seed)
    wall, cpu = np.empty((repeats, len(calls))), np.empty((repeats, len(calls)))
    with single_thread(), _no_garbage_collection():
        for _ in range(warmup):
            for call in calls:
                call()
        for turn in range(repeats):
            for k in rng.permutation(len(calls)):
                wall_start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
                calls[k]()
                cpu_end, wall_end = time.process_time_ns(), time.perf_counter_ns()
                cpu[turn, k] = max(cpu_end - cpu_start, 1) / 1e6
                wall[turn, k] = max(wall_end - wall_start, 1) / 1e6
    return wall, cpu


def _latency(wall: Floats, cpu: Floats) -> Latency:
    p50, p99 = np.quantile(wall, [0.5, 0.99])
    cpu_p50, cpu_p99 = np.quantile(cpu, [0.5, 0.99])
    return Latency(float(p50), float(p99), float(cpu_p50), float(cpu_p99), len(wall))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
