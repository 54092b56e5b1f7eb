"""A generator whose groups of requests are answered by the workers of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recdistill.cluster import Cluster, TaskWorker
from recdistill.teachers.backends.base import Generation, GenerationRequest, TextGenerator
from recdistill.teachers.base import Progress


class SpreadGenerator:
    """Gives whole groups to workers, so that every answer has the digits that one process gives it.

    Its name, settings and groups are those of the generator in this process: a folder that was begun with
    one can be finished with the other.

    Parameters
    ----------
    inner
        Who would answer here; it groups the requests and answers none.
    cluster
        Where the groups go.
    make, arguments
        The worker's class and what it is made with; its `run` takes a group and returns its answers.
    """

    def __init__(
        self,
        inner: TextGenerator,
        cluster: Cluster,
        make: Callable[..., TaskWorker],
        arguments: Sequence[Any],
    ) -> None:
        self._inner, self._cluster = inner, cluster
        self._make, self._arguments = make, arguments
        self.name = inner.name
        self.settings: Mapping[str, Any] = inner.settings
        self.answer_tokens = getattr(inner, "answer_tokens", 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `settings`."""
        return self._inner.fingerprint

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Return the groups of the generator in this process."""
        return self._inner.batches(requests)

    def generate(
        self, requests: Sequence[GenerationRequest], progress: Progress | None = None
    ) -> Iterator[Generation]:
        """Answer each request once, group by group as the workers finish them."""
        groups = self.batches(requests)
        for _, answers in self._cluster.run(self._make, self._arguments, groups, "the rows to be answered"):
            yield from answers
            if progress is not None:
                progress(len(answers))
