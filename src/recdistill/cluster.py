"""Work on a Ray cluster: independent tasks, a few workers that are each made once, results as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from recdistill.errors import ConfigError, RunError, unknown_name
from recdistill.extras import extra

ENGINES: Final = ("local", "ray")


class TaskWorker(Protocol):
    """Does tasks one after the other; made in the process that it works in."""

    def run(self, task: Any) -> Any:
        """Do one task and return what came of it."""
        ...


@dataclass(frozen=True)
class Cluster:
    """Where tasks are done.

    Attributes
    ----------
    workers
        Actors, one CPU each.
    address
        Of the cluster; None: ``RAY_ADDRESS``, or a cluster of this machine for the time of the work.
    """

    workers: int = 2
    address: str | None = None

    def run(
        self, make: Callable[..., TaskWorker], arguments: Sequence[Any], tasks: Sequence[Any], what: str
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number and the result of each task, in the order in which they end.

        A task whose worker died is given to another one by Ray, up to three times. Ray is left as it was found.

        Parameters
        ----------
        make
            The worker's class.
        arguments
            What it is made with; paths in it must mean the same files on every machine.
        tasks
            What is given to `run`, each once.
        what
            What the tasks are parts of, for messages.

        Raises
        ------
        RunError
            A task failed; the results of those that were begun are yielded before.
        MissingExtraError
            Ray is not installed.
        """
        if not tasks:
            return
        with extra("cluster"):
            import ray
        started = not ray.is_initialized()
        if started:
            local = self.address is None and "RAY_ADDRESS" not in os.environ
            cpus: dict[str, Any] = {"num_cpus": self.workers, "include_dashboard": False} if local else {}
            ray.init(address=self.address, log_to_driver=False, configure_logging=False, **cpus)
        try:
            yield from _results(ray, make, arguments, tasks, min(self.workers, len(tasks)), what)
        finally:
            if started:
                ray.shutdown()


def cluster_of(engine: str, workers: int) -> Cluster | None:
    """Return the cluster of the options ``--engine`` and ``--workers``; None: the work is done in this process.

    Raises
    ------
    ConfigError
        The engine does not exist, or `workers` is below 1.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if workers < 1:
        raise ConfigError(f"workers is {workers}. Allowed: from 1. Pass --workers 2.")
    return None if engine == "local" else Cluster(workers)


def _results(
    ray: Any,
    make: Callable[..., TaskWorker],
    arguments: Sequence[Any],
    tasks: Sequence[Any],
    workers: int,
    what: str,
) -> Iterator[tuple[int, Any]]:
    actor = ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(make)
    shared = [ray.put(argument) for argument in arguments]  # sent to each machine once
    actors = [actor.remote(*shared) for _ in range(workers)]
    try:
        yield from _spread(ray, actors, tasks, what)
    finally:
        for one in actors:  # their processors are free again, whoever still holds a handle
            ray.kill(one)


def _spread(ray: Any, actors: list[Any], tasks: Sequence[Any], what: str) -> Iterator[tuple[int, Any]]:
    idle, waiting = list(actors), list(range(len(tasks)))[::-1]
    running: dict[Any, tuple[Any, int]] = {}
    failed: tuple[int, Exception] | None = None
    while running or (waiting and failed is None):
        while waiting and idle and failed is None:
            worker, number = idle.pop(), waiting.pop()
            running[worker.run.remote(tasks[number])] = worker, number
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker, number = running.pop(done)
        idle.append(worker)
        try:
            result = ray.get(done)
        except ray.exceptions.RayError as error:  # what was begun is finished and kept
            failed = failed or (number, error)
            continue
        yield number, result
    if failed is not None:
        number, reason = failed
        cause = getattr(reason, "cause", None) or reason
        raise RunError(
            f"shard {number} of {what} failed on a worker: {cause}. The finished shards are kept: correct the cause "
            "and give the same command again."
        ) from reason
