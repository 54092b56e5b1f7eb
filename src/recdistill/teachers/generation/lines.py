"""Lines of generations on disk: how they are read, and which of them count."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recdistill.errors import KnowledgeError
from recdistill.teachers.backends.base import Generation, GenerationRequest

FINAL = "generations.jsonl"


def load_generations(folder: Path | str) -> dict[int, Generation]:
    """Return the answers of a folder, or of one ``.jsonl`` file, by row id, ascending.

    Raises
    ------
    KnowledgeError
        There is nothing to read, or a line is damaged.
    """
    path = Path(folder)
    files = [path] if path.is_file() else [path / FINAL, *sorted((path / "shards").glob("[0-9]*.jsonl"))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise KnowledgeError(
            f"{path} holds no generations. A {FINAL} file, or a folder with one, is needed: it is written by "
            "recdistill teach bigrec --stage generate."
        )
    answers: dict[int, Generation] = {}
    for file in files:
        for _, line in whole_lines(file):
            answer = generation_of(parsed_line(file, line))
            answers.setdefault(answer.key, answer)
    return dict(sorted(answers.items()))


def line_of(request: GenerationRequest, answer: Generation) -> bytes:
    """Return the line that keeps an answer, its newline included."""
    line = {
        "row_id": request.key,
        "prompt": request.prompt_hash,
        "texts": list(answer.texts),
        "scores": [round(score, 6) for score in answer.scores],
    }
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def generation_of(line: Mapping[str, Any]) -> Generation:
    """Return the answer that a line holds."""
    return Generation(line["row_id"], tuple(line["texts"]), tuple(line["scores"]))


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield ``(first byte, line with its newline)``; what follows the last newline was torn by a kill."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def parsed_line(path: Path, line: bytes) -> dict[str, Any]:
    """Return a line's fields.

    Raises
    ------
    KnowledgeError
        The line is not what `GenerationStore` writes.
    """
    try:
        fields = json.loads(line)
        texts, scores = fields["texts"], fields["scores"]
        sound = isinstance(fields["row_id"], int) and isinstance(fields["prompt"], str)
        sound &= all(isinstance(text, str) for text in texts) and len(scores) in (0, len(texts))
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise KnowledgeError(
            f"{path} has a damaged line: {line[:80]!r}. A line holds row_id, prompt, texts and scores: delete "
            "that line, and the same command asks its row again."
        )
    return dict(fields)
