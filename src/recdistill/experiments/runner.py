"""Do the jobs of a plan, some at a time; a job that fails is recorded and the others go on.

With several workers each job has a process of its own with its share of the threads, so that one that is killed
for memory takes no other with it, and a process whose parent is gone ends itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Literal

from recdistill.errors import RecdistillError
from recdistill.experiments.jobs import Job, read_failure, record_failure

__all__ = ["Event", "run_jobs"]

_INTERRUPTED = 130
#: Seconds that workers have to write a checkpoint after an interruption.
_GRACE = 30.0


@dataclass(frozen=True)
class Event:
    """Something happened to a job.

    Attributes
    ----------
    kind
        ``started``, ``finished``, ``failed``, or ``skipped``: it was finished before.
    title
        The job's.
    done, total
        Jobs that have ended, and all.
    error
        Why it failed.
    """

    kind: Literal["started", "finished", "failed", "skipped"]
    title: str
    done: int
    total: int
    error: str = ""


def run_jobs(jobs: Sequence[Job], workers: int, say: Callable[[Event], None]) -> None:
    """Do the jobs that are not done yet. A job that is in the list twice, by its folder, is done once.

    Parameters
    ----------
    jobs
        Jobs in any order; none depends on another.
    workers
        How many at a time; 1: in this process.
    say
        Hears what happens.
    """
    wanted = list({job.folder: job for job in jobs}.values())
    done = [job for job in wanted if job.done]
    tally = _Tally(len(wanted), say)
    for job in done:
        tally.ended(job, skipped=True)
    todo = [job for job in wanted if not job.done]
    if workers == 1:
        for job in todo:
            tally.started(job)
            _attempt(job)
            tally.ended(job)
    else:
        _in_processes(todo, workers, tally)


class _Tally:
    """Counts jobs and tells what happens to them."""

    def __init__(self, total: int, say: Callable[[Event], None]) -> None:
        self.total, self.say, self.done = total, say, 0

    def started(self, job: Job) -> None:
        self.say(Event("started", job.title, self.done, self.total))

    def ended(self, job: Job, *, skipped: bool = False) -> None:
        self.done += 1
        if job.done:
            self.say(Event("skipped" if skipped else "finished", job.title, self.done, self.total))
            return
        error = read_failure(job) or "it left no result"
        self.say(Event("failed", job.title, self.done, self.total, error))


def _attempt(job: Job) -> None:
    """Do a job; record every failure but an interruption by the user."""
    try:
        job.work()
    except RecdistillError as error:
        record_failure(job, str(error))
    except (
        Exception
    ) as error:  # a fault of the program: the other jobs go on, and this one tells all it knows
        record_failure(job, f"{type(error).__name__}: {error}", traceback.format_exc())


def _in_processes(todo: Sequence[Job], workers: int, tally: _Tally) -> None:
    import torch

    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    waiting = deque(todo)
    active: list[tuple[SpawnProcess, Job]] = []
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                job = waiting.popleft()
                process = context.Process(target=_child, args=(job, threads), daemon=True)
                process.start()
                active.append((process, job))
                tally.started(job)
            wait([process.sentinel for process, _ in active])
            for process, job in [pair for pair in active if pair[0].exitcode is not None]:
                active.remove((process, job))
                if process.exitcode and not job.done and process.exitcode != _INTERRUPTED:
                    record_failure(
                        job, f"its process ended with exit code {process.exitcode} (out of memory?)"
                    )
                tally.ended(job)
    except BaseException:
        _stop([process for process, _ in active])
        raise


def _stop(processes: list[SpawnProcess]) -> None:
    """Let workers that heard the interruption write their checkpoint, then end the others."""
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.terminate()


def _child(job: Job, threads: int) -> None:
    """Do one job in a process of its own."""
    import torch

    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _attempt(job)
    except KeyboardInterrupt:  # training has written its checkpoint
        sys.exit(_INTERRUPTED)


def _end_with_parent() -> None:
    """End this process when its parent is gone, however that ended: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(_INTERRUPTED)
