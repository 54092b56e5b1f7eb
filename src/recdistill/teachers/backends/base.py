"""What is asked of a language model and what comes back, whatever runs it: here, behind an endpoint, or a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recdistill.runs import fingerprint
from recdistill.teachers.base import Progress


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to be continued.

    Attributes
    ----------
    key
        The row id, by which the answer is kept.
    prompt
        The whole text that the model reads.
    """

    key: int
    prompt: str

    @property
    def prompt_hash(self) -> str:
        """The first 16 hexadecimal digits of the prompt's SHA-256: tells whether an answer is to this prompt."""
        return fingerprint(self.prompt)[:16]


@dataclass(frozen=True)
class Generation:
    """The answer to one request, or why there is none.

    Attributes
    ----------
    key
        The request's.
    texts
        What the model wrote, best first; empty where the request failed.
    scores
        Log-probabilities of `texts` (divided by a power of the length where the search has a length penalty),
        non-increasing; empty where the backend tells none.
    error
        Why the request failed; empty where it did not.
    prompt_tokens
        Tokens of the prompt; 0 where the backend does not count them.
    new_tokens
        Tokens of all `texts` with their ends; 0 where the backend does not count them.
    """

    key: int
    texts: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    error: str = ""
    prompt_tokens: int = 0
    new_tokens: int = 0

    @property
    def failed(self) -> bool:
        """Whether there is no answer."""
        return bool(self.error)


class TextGenerator(Protocol):
    """Continues prompts.

    Attributes
    ----------
    name
        As it stands in tables and manifests.
    settings
        JSON-able: everything that decides what is written, the model first.
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `settings`."""
        ...

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Split requests into the groups that are computed together, in the order of work.

        A group stays a group when other whole groups are taken away. A resumed run asks whole groups, so that
        an answer has the same digits whether the run was interrupted or not.
        """
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], progress: Progress | None = None
    ) -> Iterator[Generation]:
        """Answer each request once, in any order, as they finish; a request that fails is answered with `error`."""
        ...


def one_by_one(requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
    """Return one group a request: for backends whose answers do not depend on what else is asked."""
    return [[request] for request in requests]
