"""LLM-CF's base of examples: explained decisions, scored, the best of each row kept, as vectors.

Sun et al., CIKM 2024, https://arxiv.org/abs/2403.17688; `recdistill.user_encoders.llm_cf` is what reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.clock import RowClock
from recdistill.data.sequences import Ints, SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.knowledge.words import Words
from recdistill.runs import fingerprint
from recdistill.teachers.rationales.asking import Reply, Requests, Sampling, Work
from recdistill.teachers.rationales.decisions import (
    Decisions,
    Explaining,
    decision_requests,
    decision_sentence,
    draw_decisions,
)
from recdistill.teachers.rationales.encoding import WordEncoder, make_encoder
from recdistill.teachers.rationales.explanations import needed_texts, score
from recdistill.types import PAD

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LlmCf:
    """Writes LLM-CF's base of examples.

    Attributes
    ----------
    domain
        Which words: films, games, toys, books, generic.
    share
        Of the training rows that are asked about, in (0, 1].
    refused
        Share of these that are asked about an item that was not chosen, in [0, 1].
    last_items
        Items of a history that a prompt tells.
    columns
        Of the catalogue: what an item is called in prompts and what of it is encoded.
    seed
        Of the draws: of rows, of refused items, and of answers from a model in this process.
    answers, temperature, top_tokens
        How many answers a question gets, of which the best is kept, how they are drawn, and from how many of the
        likeliest tokens (0: all). None: 50 in this process, and left to an endpoint. One answer at temperature 0 is the
        likeliest one.

    Raises
    ------
    ConfigError
        The domain does not exist, or answers cannot be drawn like that.
    """

    name: ClassVar[str] = "llm-cf"
    domain: str = "generic"
    share: float = 0.1
    refused: float = 0.5
    last_items: int = 10
    columns: Sequence[str] = ("title",)
    seed: int = 0
    answers: int = 3
    temperature: float = 0.6
    top_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.answers < 1 or self.temperature < 0 or (self.answers > 1 and self.temperature == 0):
            raise ConfigError(
                f"answers={self.answers} at temperature={self.temperature} is not possible. Allowed: from 1; above 0, "
                "or 0 for one answer. Pass answers=3 temperature=0.6."
            )
        _ = self.words

    @property
    def sampling(self) -> Sampling | None:
        """How answers are drawn; None: the likeliest one is taken."""
        return (
            Sampling(self.answers, self.temperature, self.top_tokens, self.seed) if self.temperature else None
        )

    @property
    def words(self) -> Explaining:
        """The words of the question."""
        return Explaining(self.domain)

    def texts(self, work: Work) -> list[str]:
        """Return what each item is called."""
        columns = [self.columns] if isinstance(self.columns, str) else list(self.columns)
        return work.dataset.catalogue.text(columns, separator=", ")

    def decisions(self, work: Work) -> Decisions:
        """Return what is asked about."""
        return draw_decisions(
            work.dataset,
            self.texts(work),
            share=self.share,
            refused=self.refused,
            last_items=self.last_items,
            seed=self.seed,
        )

    def asks(self, work: Work) -> dict[str, Requests]:
        """Return the prompts, by row id."""
        requests = decision_requests(
            work.dataset,
            self.decisions(work),
            self.texts(work),
            self.words,
            last_items=self.last_items,
            encode=work.encode,
            max_tokens=work.room,
        )
        return {"decisions": requests}

    def make(self, work: Work) -> tuple[Words, dict[str, pl.DataFrame], WordEncoder]:
        """Ask, score, keep the best answer of each row, and encode items and explanations with one encoder."""
        settings = {
            "maker": self.name,
            "prompt": fingerprint(self.words.fixed),
            "share": self.share,
            "refused": self.refused,
            "seed": self.seed,
        }
        asked, texts, decisions = self.asks(work)["decisions"], self.texts(work), self.decisions(work)
        replies = work.ask("decisions", asked, settings)
        table, vectors, encoder = judged(work, decisions, [replies[r.key] for r in asked], texts, self)
        kept = np.flatnonzero(table["score"].to_numpy() > 0)
        rows = decisions.rows[kept]
        arrays: dict[str, npt.NDArray[Any]] = {
            "example_rows": work.dataset.row_ids[rows],
            "example_items": decisions.items[kept],
            "example_labels": decisions.labels[kept].astype(np.int32),
            "example_times": RowClock.of(work.dataset).times[rows],
            "example_words": vectors[kept],
            "item_vectors": encoder.encode(texts),
        }
        manifest = {
            "generator": dict(work.generator.settings),
            "encoder": encoder.name,
            "clock": RowClock.of(work.dataset).kind,
            **asdict(self),
            **_counts(table.with_columns(pl.col("score") > 0)),
        }
        return Words(self.name, arrays, manifest), {"examples": table}, encoder


def judged(
    work: Work, decisions: Decisions, replies: Sequence[Reply], texts: Sequence[str], how: LlmCf
) -> tuple[pl.DataFrame, Floats, WordEncoder]:
    """Score what was written and keep the best answer of each row.

    Parameters
    ----------
    work
        Names the encoder.
    decisions, replies
        n questions, and what came back.
    texts
        What each of the I items is called.
    how
        The words of the questions.

    Returns
    -------
    tuple
        A table with one line a question: ``row_id``, ``user`` (its sequence), ``as_of`` (when the decision was taken,
        in seconds; null without timestamps), ``item``, ``label``, ``score`` (of the best answer, 0 where none can be
        used), ``text`` (that answer), ``answers`` (how many came) and ``problem``; ``(n, D)`` vectors of the texts; and
        who made them.

    Raises
    ------
    KnowledgeError
        Not one answer can be used.
    """
    data = work.dataset
    said = [
        decision_sentence(texts[item], chosen)
        for item, chosen in zip(decisions.items.tolist(), decisions.labels.tolist(), strict=True)
    ]
    found = [list(dict.fromkeys(text.strip() for text in reply.texts if text.strip())) for reply in replies]
    needed = needed_texts([text for row in found for text in row], said)
    encoder = make_encoder(work.encoder, [*texts, *needed], work.out / "encoded")
    vectors = dict(zip(needed, encoder.encode(needed), strict=True))
    histories = _mean_vectors(encoder.encode(texts), data.histories(decisions.rows, how.last_items))
    best = [
        max(
            ((score(text, how.words.fixed, decision, history, vectors), text) for text in row),
            default=(0.0, ""),
        )
        for row, decision, history in zip(found, said, histories, strict=True)
    ]
    kept = [(value, text) if value > 0 else (0.0, "") for value, text in best]
    table = pl.DataFrame(
        {
            "row_id": data.row_ids[decisions.rows],
            "user": data.row_sequences[decisions.rows],
            "as_of": _as_of(data, decisions.rows),
            "item": decisions.items,
            "label": decisions.labels,
            "score": [value for value, _ in kept],
            "text": [text for _, text in kept],
            "answers": [len(row) for row in found],
            "problem": [_problem(reply, value) for reply, (value, _) in zip(replies, kept, strict=True)],
        },
        schema_overrides={"as_of": pl.Int64},
    )
    if not any(value for value, _ in kept):
        raise KnowledgeError(
            f"none of the answers to {len(kept):,} questions can be used: each is missing, shorter than ten "
            "characters, or repeats the question. Needed: at least one. Read them in answers/decisions, then try "
            "another --model, or --max-new-tokens 300, with another --out."
        )
    width = len(next(iter(vectors.values())))
    none = np.zeros(width, dtype=np.float32)
    return table, np.stack([vectors[text] if text else none for _, text in kept]), encoder


def _problem(reply: Reply, value: float) -> str:
    return reply.problem or ("" if value > 0 else "too short, or an echo of the question")


def _counts(table: pl.DataFrame) -> dict[str, Any]:
    """Return how many texts there are and how many are missing, from a table whose score says which can be used."""
    kept = table.filter("score")
    by_label = {
        name: int((kept["label"] == value).sum()) for name, value in (("chosen", True), ("refused", False))
    }
    asked = {
        name: int((table["label"] == value).sum()) for name, value in (("chosen", True), ("refused", False))
    }
    return {
        "texts": by_label,
        "without_text": {name: asked[name] - count for name, count in by_label.items()},
    }


def _mean_vectors(items: Floats, histories: Ints) -> Floats:
    """Return ``(n, D)`` mean vectors of ``(n, L)`` histories' items."""
    there = histories != PAD
    total = np.zeros((len(histories), items.shape[1]), dtype=np.float32)
    for step in range(histories.shape[1]):
        total += items[np.maximum(histories[:, step], 0)] * there[:, step, None]
    mean: Floats = total / np.maximum(there.sum(1, keepdims=True), 1).astype(np.float32)
    return mean


def _as_of(dataset: SequenceDataset, rows: Ints) -> list[int] | list[None]:
    """Return when each row happened, in seconds; None without timestamps."""
    if dataset.timestamps is None:
        return [None] * len(rows)
    return [int(second) for second in dataset.timestamps[dataset.row_events[rows]]]
