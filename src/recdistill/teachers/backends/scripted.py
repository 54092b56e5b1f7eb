"""Answers from a file or a dictionary: what a language model wrote is replayed without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation, GenerationRequest, one_by_one
from recdistill.teachers.base import Progress


class ScriptedGenerator:
    """Answers each row with what is recorded for it.

    Parameters
    ----------
    answers
        Row id to a text, to texts best first, or to a `Generation`; or the path of a generations folder or
        ``.jsonl`` file. A row without a record fails and says so.

    Examples
    --------
    >>> generator = ScriptedGenerator({7: "Toy Story"})
    >>> next(generator.generate([GenerationRequest(7, "What next?")])).texts
    ('Toy Story',)
    """

    name = "scripted"

    def __init__(self, answers: Mapping[int, str | Sequence[str] | Generation] | Path | str) -> None:
        if isinstance(answers, (str, Path)):
            # here, because that file's types come from this package
            from recdistill.teachers.generation.lines import load_generations

            answers = load_generations(answers)
        self.answers = {key: _generation(key, answer) for key, answer in answers.items()}
        content = [f"{key} {answer.texts} {answer.scores}" for key, answer in sorted(self.answers.items())]
        self.settings: Mapping[str, Any] = {"model": self.name, "answers": fingerprint(*content)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the answers."""
        return str(self.settings["answers"])

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Return one group a request."""
        return one_by_one(requests)

    def generate(
        self, requests: Sequence[GenerationRequest], progress: Progress | None = None
    ) -> Iterator[Generation]:
        """Answer in the order asked."""
        for request in requests:
            yield self.answers.get(request.key) or Generation(request.key, error="no answer is recorded")
            if progress is not None:
                progress(1)


def _generation(key: int, answer: str | Sequence[str] | Generation) -> Generation:
    if isinstance(answer, Generation):
        return answer
    return Generation(key, (answer,) if isinstance(answer, str) else tuple(answer))
