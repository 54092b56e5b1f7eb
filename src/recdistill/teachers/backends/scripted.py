"""Answers from a file or a dictionary: what a language model wrote is replayed without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recdistill.errors import KnowledgeError
from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation, GenerationRequest, one_by_one
from recdistill.teachers.base import Progress


class ScriptedGenerator:
    """Answers each row with what is recorded for it.

    Parameters
    ----------
    answers
        Row id to a text, to texts best first, or to a `Generation`; or the path of a generations folder or
        ``.jsonl`` file; or of a folder with one of either for each kind of request, named as the kind: ``items.jsonl``
        and ``users.jsonl``, or the ``answers/`` of an earlier run. A row without a record fails and says so.

    Examples
    --------
    >>> generator = ScriptedGenerator({7: "Toy Story"})
    >>> next(generator.generate([GenerationRequest(7, "What next?")])).texts
    ('Toy Story',)
    """

    name = "scripted"

    def __init__(self, answers: Mapping[int, str | Sequence[str] | Generation] | Path | str) -> None:
        self.kinds: dict[str, ScriptedGenerator] = {}
        if isinstance(answers, (str, Path)):
            # here, because that file's types come from this package
            from recdistill.teachers.generation.lines import load_generations

            parts = _parts(Path(answers))
            self.kinds = {kind: ScriptedGenerator(part) for kind, part in parts.items()}
            answers = {} if parts else load_generations(answers)
        self.answers = {key: _generation(key, answer) for key, answer in answers.items()}
        content = [f"{key} {answer.texts} {answer.scores}" for key, answer in sorted(self.answers.items())]
        content += [f"{kind} {part.fingerprint}" for kind, part in sorted(self.kinds.items())]
        self.settings: Mapping[str, Any] = {"model": self.name, "answers": fingerprint(*content)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the answers."""
        return str(self.settings["answers"])

    def of(self, kind: str) -> ScriptedGenerator:
        """Return who answers a kind of request, such as ``users``: the same for all where one file holds the answers.

        Raises
        ------
        KnowledgeError
            There are answers by kind, and none of this one.
        """
        if not self.kinds:
            return self
        if kind not in self.kinds:
            raise KnowledgeError(
                f"there are no answers to {kind!r} among the scripted ones: {', '.join(sorted(self.kinds))}. Needed: "
                f"a file {kind}.jsonl beside them, or leave that side out, as in users=false."
            )
        return self.kinds[kind]

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


def _parts(path: Path) -> dict[str, Path]:
    """Return the files or folders of answers in a folder by kind; none where it is itself a folder of answers."""
    from recdistill.teachers.generation.lines import FINAL

    if not path.is_dir() or (path / FINAL).is_file() or (path / "shards").is_dir():
        return {}
    files = {file.stem: file for file in sorted(path.glob("*.jsonl"))}
    folders = {one.name: one for one in sorted(path.iterdir()) if (one / FINAL).is_file()}
    return folders | files


def _generation(key: int, answer: str | Sequence[str] | Generation) -> Generation:
    if isinstance(answer, Generation):
        return answer
    return Generation(key, (answer,) if isinstance(answer, str) else tuple(answer))
