"""The shards of a batch job on a Ray cluster. Each worker loads the recommender once and writes its own shards."""

from __future__ import annotations

import os
from typing import Any

from recdistill.errors import MissingExtraError, RunError
from recdistill.export.batch import Job, Progress, Worker


def require_ray() -> Any:
    """Return the module ``ray``.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "cluster") from None
    return ray


def run_on_ray(job: Job, missing: list[int], *, workers: int, address: str | None, progress: Progress) -> int:
    """Let workers write the missing shards; return how many histories they answered.

    A shard whose worker died is given to another one by Ray, up to three times. Ray is left as it was found.

    Parameters
    ----------
    job
        Its paths must mean the same files on every machine.
    missing
        Numbers of shards.
    workers
        Actors, one CPU each.
    address
        Of the cluster; None: ``RAY_ADDRESS``, or a cluster of this machine for this call.
    progress
        Called with the histories of each finished shard.

    Raises
    ------
    RunError
        A shard could not be written.
    """
    if not missing:
        return 0
    ray = require_ray()
    started = not ray.is_initialized()
    if started:
        local = address is None and "RAY_ADDRESS" not in os.environ
        cpus: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if local else {}
        ray.init(address=address, log_to_driver=False, configure_logging=False, **cpus)
    try:
        return _run(ray, job, missing, min(workers, len(missing)), progress)
    finally:
        if started:
            ray.shutdown()


def _run(ray: Any, job: Job, missing: list[int], workers: int, progress: Progress) -> int:
    actor = ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(Worker)
    idle = [actor.remote(job) for _ in range(workers)]
    waiting, answered = list(reversed(missing)), 0
    running: dict[Any, tuple[Any, int]] = {}
    while waiting or running:
        while waiting and idle:
            worker, number = idle.pop(), waiting.pop()
            running[worker.run.remote(number)] = worker, number
        (done,), _ = ray.wait(list(running), num_returns=1)
        worker, number = running.pop(done)
        try:
            rows = int(ray.get(done))
        except ray.exceptions.RayError as error:
            if running:
                ray.wait(list(running), num_returns=len(running))  # what was begun is finished and kept
            cause = getattr(error, "cause", None) or error
            raise RunError(
                f"shard {number} of {job.source} failed on a worker: {cause}. The finished shards are kept: correct "
                "the cause and give the same command again."
            ) from error
        idle.append(worker)
        answered += rows
        progress(rows)
    return answered
