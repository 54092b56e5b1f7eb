"""What a language model wrote, row by row: append-only, resumable, and replayed without the model.

A folder holds ``shards/NNNNN.jsonl`` while the work goes on, one file a run, one line a row::

    {"row_id": 7, "prompt": "3f0c...", "texts": ["\\"Toy Story\\""], "scores": [-1.25]}

A line is written in one piece and counts once it is whole, so a process killed at any byte loses at most the line
it was writing. `GenerationStore.finish` sorts the lines by row id into ``generations.jsonl``: the same bytes
however often the work was interrupted. ``failures.jsonl`` names the rows that could not be answered; they
stay pending.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from recdistill.data.sequences import Ints, SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.runs import MANIFEST, atomic_file, fingerprint, read_manifest, remove_folder, write_manifest
from recdistill.teachers.backends.base import Generation, GenerationRequest, TextGenerator
from recdistill.teachers.base import Progress
from recdistill.teachers.generation.lines import FINAL, generation_of, line_of, parsed_line, whole_lines

FAILURES = "failures.jsonl"


@dataclass(frozen=True)
class GenerationReport:
    """What a run of `generate_rows` did.

    Attributes
    ----------
    rows
        Rows that were wanted.
    answered
        Rows that have an answer now.
    resumed
        Rows that had one before.
    failures
        Why requests failed, and how often, most frequent first.
    """

    rows: int
    answered: int
    resumed: int
    failures: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> int:
        """Rows that were asked in vain; they stay pending."""
        return sum(count for _, count in self.failures)

    def __str__(self) -> str:
        text = f"{self.answered:,} of {self.rows:,} rows answered ({self.resumed:,} of them before this run)"
        if not self.failures:
            return text
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in self.failures[:3])
        return f"{text}; {self.failed:,} failed and stay pending: {reasons}. Run the same command again."


class GenerationStore:
    """The answers of one generator with one set of settings.

    Parameters
    ----------
    folder
        Made if it is not there; one that was begun, or finished, with the same settings is continued.
    settings
        JSON-able: the generator's settings, the prompt template's fingerprint, the dataset's fingerprint.

    Raises
    ------
    KnowledgeError
        The folder was begun with other settings, or a line in it is damaged.
    """

    def __init__(self, folder: Path | str, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.shards = self.folder / "shards"
        self.settings = json.loads(json.dumps(dict(settings), sort_keys=True))
        self.fingerprint = fingerprint(json.dumps(self.settings, sort_keys=True))
        self._file: BinaryIO | None = None
        if (self.folder / MANIFEST).is_file():
            self._require_same(read_manifest(self.folder, "generations"))
        else:
            write_manifest(self.folder, "generations", self._manifest())
        self._done = {line["row_id"]: line["prompt"] for line in self._lines()}

    def _manifest(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint, "settings": self.settings}

    def _require_same(self, manifest: Mapping[str, Any]) -> None:
        if manifest.get("fingerprint") == self.fingerprint:
            return
        before = manifest.get("settings") or {}
        names = [
            name for name in sorted({*before, *self.settings}) if before.get(name) != self.settings.get(name)
        ]
        raise KnowledgeError(
            f"{self.folder} holds answers that were made with other settings ({', '.join(names)} differ). A "
            "folder holds the answers of one model with one prompt and one way of decoding: choose another --out, "
            "or pass --overwrite to start anew."
        )

    @property
    def files(self) -> list[Path]:
        """The merged file, if there is one, then the shards in the order of writing."""
        merged = [self.folder / FINAL] if (self.folder / FINAL).is_file() else []
        return [*merged, *sorted(self.shards.glob("[0-9]*.jsonl"))]

    def __len__(self) -> int:
        return len(self._done)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._done

    def pending(self, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """Return the requests that have no answer yet, in the order given.

        Raises
        ------
        KnowledgeError
            A row was answered, but to another prompt.
        """
        for request in requests:
            if request.key in self._done and self._done[request.key] != request.prompt_hash:
                raise KnowledgeError(
                    f"row {request.key} in {self.folder} was answered to another prompt. Answers are kept for "
                    "one dataset, template and history length: choose another --out, or pass --overwrite."
                )
        return [request for request in requests if request.key not in self._done]

    def append(self, request: GenerationRequest, answer: Generation) -> None:
        """Write one answer; a row that has one already keeps it.

        Raises
        ------
        KnowledgeError
            The answer is a failure, or belongs to another request.
        """
        if answer.failed or answer.key != request.key:
            raise KnowledgeError(
                f"row {request.key} cannot keep this answer: {answer.error or f'it answers row {answer.key}'}."
            )
        if request.key in self._done:
            return
        self._open().write(line_of(request, answer))
        self._done[request.key] = request.prompt_hash

    def flush(self) -> None:
        """Hand what was appended to the system."""
        if self._file is not None:
            self._file.flush()

    def _open(self) -> BinaryIO:
        """Return this run's shard: never one that another run wrote, whose last line may be torn."""
        if self._file is None:
            self.shards.mkdir(parents=True, exist_ok=True)
            numbers = [int(path.stem) for path in self.shards.glob("[0-9]*.jsonl")]
            self._file = (self.shards / f"{max(numbers, default=-1) + 1:05d}.jsonl").open("xb")
        return self._file

    def close(self) -> None:
        """Close this run's shard."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> Path:
        """Sort all answers by row id into ``generations.jsonl``, drop the shards, and return the file.

        Raises
        ------
        KnowledgeError
            Nothing was answered.
        """
        self.close()
        places = self._places()
        if not places:
            raise KnowledgeError(
                f"{self.folder} holds no answers. At least one row must have been answered: run the command that "
                "writes it again."
            )
        files = {path: path.open("rb") for path in self.files}
        try:
            with atomic_file(self.folder / FINAL) as temporary, temporary.open("wb") as out:
                for row in sorted(places):
                    path, start, size = places[row]
                    files[path].seek(start)
                    out.write(files[path].read(size))
        finally:
            for file in files.values():
                file.close()
        remove_folder(self.shards)
        return self.folder / FINAL

    def read(self) -> dict[int, Generation]:
        """Return all answers by row id, ascending."""
        self.flush()
        answers = {
            line["row_id"]: generation_of(line) for line in reversed(list(self._lines()))
        }  # first one wins
        return dict(sorted(answers.items()))

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in self.files:
            for _, line in whole_lines(path):
                yield parsed_line(path, line)

    def _places(self) -> dict[int, tuple[Path, int, int]]:
        """Return where each row's first answer lies: file, first byte, bytes."""
        places: dict[int, tuple[Path, int, int]] = {}
        for path in self.files:
            for start, line in whole_lines(path):
                places.setdefault(parsed_line(path, line)["row_id"], (path, start, len(line)))
        return places

    def note_failures(self, failures: Iterable[Generation]) -> None:
        """Write ``failures.jsonl`` anew: the rows of the last run that stay pending, and why."""
        lines = [json.dumps({"row_id": f.key, "error": f.error}, ensure_ascii=False) for f in failures]
        path = self.folder / FAILURES
        if lines:
            with atomic_file(path) as temporary:
                temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def generate_rows(
    generator: TextGenerator,
    requests: Sequence[GenerationRequest],
    store: GenerationStore,
    *,
    progress: Progress | None = None,
) -> GenerationReport:
    """Ask what is pending, keep every answer as it comes, and merge them at the end.

    Parameters
    ----------
    generator
        Who answers.
    requests
        All of them, whether answered before or not: a generator that works in batches asks a batch again whole
        where one of its rows is missing, so that every answer has the digits of an uninterrupted run.
    store
        Where the answers go.
    progress
        Called with the number of rows that were just finished; rows answered before count at once.

    Raises
    ------
    KnowledgeError
        An answer belongs to no request, or nothing was answered at all.
    """
    by_key = {request.key: request for request in requests}
    if len(by_key) != len(requests):
        raise KnowledgeError("two requests have the same row id. Row ids are unique: ask each row once.")
    missing = {request.key for request in store.pending(requests)}
    resumed = len(requests) - len(missing)
    if progress is not None and resumed:
        progress(resumed)
    groups = [group for group in generator.batches(requests) if any(r.key in missing for r in group)]
    failures: dict[int, Generation] = {}
    answers = generator.generate([request for group in groups for request in group])
    try:
        for answer in answers:
            if answer.key not in by_key:
                raise KnowledgeError(f"the generator answered row {answer.key}, which was not asked.")
            if answer.failed:
                failures[answer.key] = answer
            else:
                store.append(by_key[answer.key], answer)
                store.flush()
            if progress is not None and answer.key in missing:
                progress(1)
    finally:
        if isinstance(answers, Generator):
            answers.close()  # what still works for it ends now, not when the error is forgotten
        store.close()
        store.note_failures(failures[key] for key in sorted(failures) if key not in store)
    if len(store):
        store.finish()
    reasons = Counter(f.error for f in failures.values() if f.key not in store)
    answered = sum(request.key in store for request in requests)
    return GenerationReport(len(requests), answered, resumed, tuple(reasons.most_common()))


def title_requests(
    dataset: SequenceDataset,
    rows: Ints,
    prompt_of: Callable[[Sequence[str]], str],
    *,
    last_items: int = 10,
) -> list[GenerationRequest]:
    """Return the prompts of rows.

    Parameters
    ----------
    dataset
        Where the rows come from.
    rows
        ``(n,)`` positions.
    prompt_of
        Titles of a history, oldest first, to the prompt; drops the oldest where they do not fit.
    last_items
        How many of the last items are told; those without a title are left out.
    """
    titles = dataset.catalogue.titles
    histories = dataset.histories(rows, last_items)
    keys = dataset.row_ids[rows].tolist()
    return [
        GenerationRequest(key, prompt_of([titles[item] for item in history if item >= 0 and titles[item]]))
        for key, history in zip(keys, histories.tolist(), strict=True)
    ]
