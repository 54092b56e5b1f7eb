"""What the makers of knowledge in words share: who is asked, where answers lie, what a text says, what it may cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import polars as pl

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.knowledge.words import Words
from recdistill.teachers.backends.base import GenerationRequest, TextGenerator
from recdistill.teachers.backends.scripted import ScriptedGenerator
from recdistill.teachers.base import Progress
from recdistill.teachers.generation.answers import FAILURES, GenerationStore, generate_rows
from recdistill.teachers.rationales.encoding import WordEncoder
from recdistill.teachers.rationales.moments import Moments

if TYPE_CHECKING:
    from recdistill.teachers.language_model.loading import LanguageModel

Requests = Sequence[GenerationRequest]


@dataclass(frozen=True)
class Reply:
    """What came back: a text, or why there is none. Nothing is made up in its place.

    Attributes
    ----------
    text
        The first answer; empty where there is none.
    problem
        Why it is empty.
    texts
        All answers, best first, where several were asked for.
    """

    text: str
    problem: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How several answers to one prompt are drawn.

    Attributes
    ----------
    answers
        How many.
    temperature
        Above 0.
    top_tokens
        Only so many of the likeliest tokens; 0: all; None: 50 in this process, and left to an endpoint.
    seed
        Of a model in this process; an endpoint draws as it likes, and its answers are kept.
    """

    answers: int
    temperature: float
    top_tokens: int | None = None
    seed: int = 0


def _no_bar(text: str, total: int) -> Progress:
    return lambda done: None


@dataclass(frozen=True, eq=False)
class Work:
    """Everything a maker works with.

    Attributes
    ----------
    dataset
        Whose users and items.
    generator
        Who is asked; the large model.
    out
        The folder; answers lie under ``answers/NAME``.
    encoder
        Name of the text encoder, for `make_encoder`.
    lm
        The model where it is in this process: its tokens are counted; None behind an endpoint.
    answer_tokens
        Kept for an answer.
    bar
        Starts a progress bar: its text, its total.
    say
        Tells a line.
    answers
        How many a prompt gets, for what it will cost.
    """

    dataset: SequenceDataset
    generator: TextGenerator
    out: Path
    encoder: str = "tfidf"
    lm: LanguageModel | None = None
    answer_tokens: int = 256
    bar: Callable[[str, int], Progress] = field(default=_no_bar)
    say: Callable[[str], None] = field(default=lambda line: None)
    answers: int = 1

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        context = None if self.lm is None else self.lm.context
        return (context or 1 << 30) - self.answer_tokens

    @property
    def encode(self) -> Callable[[str], Sequence[int]] | None:
        """Text to tokens, or None where they cannot be counted."""
        return None if self.lm is None else self.lm.encode

    def ask(
        self,
        name: str,
        requests: Requests,
        settings: Mapping[str, Any],
        generator: TextGenerator | None = None,
    ) -> dict[int, Reply]:
        """Ask what has no answer yet, and return every request's reply by its key.

        Parameters
        ----------
        name
            Folder of the answers.
        requests
            All of them; their keys are row ids, items, or newest events.
        settings
            What else decides the prompts, so that answers to others are not taken for these.
        generator
            Who is asked instead.

        Raises
        ------
        KnowledgeError
            The folder holds answers of another model, or to other prompts.
        """
        asked = generator or self.generator
        if isinstance(asked, ScriptedGenerator):
            asked = asked.of(name)
        store = GenerationStore(
            self.out / "answers" / name,
            {**asked.settings, **settings, "dataset": self.dataset.fingerprint},
        )
        if requests:
            report = generate_rows(asked, requests, store, progress=self.bar(name, len(requests)))
            self.say(f"{name}: {report}")
        texts = {key: answer.texts for key, answer in store.read().items()}
        failed = _failures(store.folder / FAILURES)
        return {request.key: _reply(texts.get(request.key), failed.get(request.key)) for request in requests}


class Maker(Protocol):
    """A system that lets a language model write about users and items.

    Attributes
    ----------
    name
        As on the command line. A maker that wants several answers to a prompt, or answers that are drawn, has
        `sampling` besides, see `recdistill.teachers.rationales.llm_cf.LlmCf`.
    """

    name: ClassVar[str]

    def asks(self, work: Work) -> dict[str, Requests]:
        """Return what the large model will be asked, by the name of its folder of answers."""
        ...

    def make(self, work: Work) -> tuple[Words, dict[str, pl.DataFrame], WordEncoder]:
        """Ask, and return vectors, tables of texts, and what made the vectors."""
        ...


def _reply(texts: Sequence[str] | None, failure: str | None) -> Reply:
    if texts is None:
        return Reply("", f"failed: {failure}" if failure else "not answered")
    text = texts[0].strip() if texts else ""
    if not any(sign.isalnum() for sign in text):
        return Reply("", "no word in the answer" if text else "empty answer", tuple(texts))
    return Reply(text, texts=tuple(texts))


def _failures(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {int(line["row_id"]): str(line["error"]) for line in lines}


def user_table(
    dataset: SequenceDataset, made: Moments, requests: Requests, replies: Sequence[Reply]
) -> pl.DataFrame:
    """Return a table of texts about users: whose, as of when, to which prompt, and what went wrong.

    Columns ``user`` (sequence), ``as_of`` (seconds since 1970; without times, the event's number), ``newest_event``,
    ``events_told``, ``prompt`` (hash), ``text``, ``problem``.
    """
    times = dataset.timestamps
    return pl.DataFrame(
        {
            "user": made.users,
            "as_of": made.newest if times is None else times[made.newest],
            "newest_event": made.newest,
            "events_told": made.newest - made.starts + 1,
            "prompt": [request.prompt_hash for request in requests],
            "text": [reply.text for reply in replies],
            "problem": [reply.problem for reply in replies],
        },
        schema_overrides={"prompt": pl.String, "text": pl.String, "problem": pl.String},
    )


def known_moments(made: Moments, replies: Sequence[Reply]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the moments that have a text."""
    return np.flatnonzero(np.array([bool(reply.text) for reply in replies], dtype=bool))


def planned_cost(
    work: Work,
    groups: Mapping[str, Requests],
    *,
    prompt_price: float | None = None,
    answer_price: float | None = None,
) -> list[tuple[str, str]]:
    """Return what the large model is about to be asked, as names and values; nothing is asked for it.

    Answers that are in the folder already are not counted. Tokens of prompts are counted where the tokenizer is here,
    else four characters stand for one; answers count with the most they may have. For measured time and memory use
    `recdistill.teachers.cost.estimate_cost`.
    """
    pending = {name: _pending(work, name, requests) for name, requests in groups.items()}
    calls = sum(map(len, pending.values()))
    texts = [request.prompt for requests in pending.values() for request in requests]
    counted = work.lm is not None
    read = sum(map(len, work.lm.encode_all(texts))) if work.lm is not None else sum(map(len, texts)) // 4
    written = calls * work.answers * work.answer_tokens
    each = ", ".join(f"{len(requests):,} {name}" for name, requests in pending.items())
    done = sum(map(len, groups.values())) - calls
    lines = [
        ("prompts", f"{calls:,} ({each}); {done:,} answered before"),
        ("tokens read", f"{read:,} ({'counted' if counted else 'estimated'})"),
        ("tokens written", f"{written:,} at most"),
    ]
    if prompt_price is not None or answer_price is not None:
        price = (read * (prompt_price or 0.0) + written * (answer_price or 0.0)) / 1e6
        lines.append(("price", f"{price:,.2f} at most"))
    return lines


def _pending(work: Work, name: str, requests: Requests) -> Requests:
    folder = work.out / "answers" / name
    if not folder.is_dir():
        return requests
    from recdistill.teachers.generation.lines import load_generations

    try:
        done = load_generations(folder)
    except KnowledgeError:  # the store will say what is wrong with it
        return requests
    return [request for request in requests if request.key not in done]
