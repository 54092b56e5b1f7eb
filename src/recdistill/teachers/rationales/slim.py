"""SLIM: rationales in three steps, written by a large model for some users and by a small one, taught by it, for all.

Wang et al., "Can Small Language Models be Good Reasoners for Sequential Recommendation?", WWW 2024,
https://arxiv.org/abs/2403.04260.

(1)  L_distill = - sum_{u in U'} sum_t log P(r_{u,t} | p_u, r_{u,<t})    r: the large model's rationale, p: prompt

=================  ==================  ===========  ===========================================================
symbol             name in code        default      where the default comes from
=================  ==================  ===========  ===========================================================
U'                 teacher_texts       1000         unpublished; the specification names 1,000 to 5,000
the small model    small               -            LLaMA2-7B in the paper; any causal language model
method, rate ...   tuning              LoRA r 16    unpublished; `FinetuneOptions`, full for small models
.                  cuts                [0.5, 1]     ours: training rows need an earlier text than valid and test
=================  ==================  ===========  ===========================================================

Where this differs from the paper
1. It writes one rationale a user, from his whole history. A training row would read its own answer in it; here a user
   is described at several moments, and a row reads the newest it may.
2. It encodes the rationale as one text. Here each step is kept apart as well, and the student decides.
3. Without a small model (``small`` is not given) the large one writes for everybody: SLIM- of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.catalogue import Catalogue
from recdistill.errors import ConfigError
from recdistill.knowledge.words import Words
from recdistill.teachers.backends.base import GenerationRequest
from recdistill.teachers.rationales.asking import (
    Requests,
    Work,
    known_moments,
    user_table,
)
from recdistill.teachers.rationales.encoding import WordEncoder, make_encoder
from recdistill.teachers.rationales.moments import Keep, Moments, moments, readable
from recdistill.teachers.rationales.small import small_generator
from recdistill.teachers.rationales.steps import Rationale, parse_rationale
from recdistill.teachers.rationales.wording import Domain, domain, fitted, slim_user
from recdistill.types import Split

Floats = npt.NDArray[np.float32]
#: Columns of a catalogue that are no text about an item.
_IDS = ("item_id", "asin", "raw_id")


@dataclass(frozen=True)
class Slim:
    """Writes SLIM's knowledge.

    Attributes
    ----------
    domain
        Which words: films, games, toys, books, generic.
    teacher_texts
        Texts that the large model writes to teach the small one, drawn over all moments; 0: all.
    small
        Folder or name of the small model; None: the large model writes for everybody.
    tuning
        Options of `FinetuneOptions` for the small model.
    small_tokens
        Tokens of a small model's answer at most.
    cuts, most, keep, each_row
        When a user is described and of what, see `recdistill.teachers.rationales.moments.moments`.
    seed
        Of the texts that are drawn.

    Raises
    ------
    ConfigError
        A count is below 0, or the domain does not exist.
    """

    name: ClassVar[str] = "slim"
    domain: str = "generic"
    teacher_texts: int = 1000
    small: str | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)
    small_tokens: int = 160
    cuts: Sequence[float] = (0.5, 1.0)
    most: int = 10
    keep: Keep = "last"
    each_row: Sequence[Split] = field(default_factory=tuple)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.teacher_texts < 0 or self.small_tokens < 1:
            raise ConfigError(
                f"teacher_texts is {self.teacher_texts} and small_tokens {self.small_tokens}. Allowed: from 0, and "
                "from 1. Pass teacher_texts=1000."
            )
        _ = self.words

    @property
    def words(self) -> Domain:
        """The domain's words."""
        return domain(self.domain)

    def moments(self, work: Work) -> Moments:
        """Return when users are described."""
        return moments(work.dataset, self.cuts, most=self.most, keep=self.keep, each_row=self.each_row)

    def asks(self, work: Work) -> dict[str, Requests]:
        """Return the prompts to the large model, by the newest event that is told."""
        requests = self._requests(work, self.moments(work), work.room)
        if self.small is None:
            return {"users": requests}
        count = self.teacher_texts if 0 < self.teacher_texts < len(requests) else len(requests)
        drawn = np.sort(np.random.default_rng(self.seed).choice(len(requests), count, replace=False))
        return {"teacher": [requests[k] for k in drawn]}

    def _requests(self, work: Work, made: Moments, room: int) -> list[GenerationRequest]:
        titles, requests = work.dataset.catalogue.titles, []
        for moment in range(len(made)):
            told = [titles[item] for item in made.told(work.dataset, moment) if titles[item]]
            prompt = fitted(partial(slim_user, self.words), told, work.encode, room)
            requests.append(GenerationRequest(int(made.newest[moment]), prompt))
        return requests

    def make(self, work: Work) -> tuple[Words, dict[str, pl.DataFrame], WordEncoder]:
        """Ask the large model, teach the small one, let it write for everybody, and encode users and items."""
        settings = {"maker": self.name, "prompt": self.words.fingerprint}
        asked, made = self.asks(work), self.moments(work)
        teacher_facts: dict[str, Any] = {}
        if self.small is None:
            requests, replies = asked["users"], work.ask("users", asked["users"], settings)
        else:
            taught = work.ask("teacher", asked["teacher"], settings)
            pairs = [
                (request.prompt, parse_rationale(taught[request.key].text).label)
                for request in asked["teacher"]
                if taught[request.key].text
            ]
            writer, lm, teacher_facts = small_generator(
                self.small, pairs, self.tuning, self.small_tokens, work.out / "small", work.bar, work.say
            )
            nearer = Work(work.dataset, writer, work.out, lm=lm, answer_tokens=self.small_tokens)
            requests = self._requests(nearer, made, nearer.room)
            replies = work.ask("users", requests, settings, writer)
        users = [replies[request.key] for request in requests]
        known = known_moments(made, users)
        told = Moments(made.users[known], made.starts[known], made.newest[known])
        said = [parse_rationale(users[k].text) for k in known]
        about = item_texts(work.dataset.catalogue)
        encoder = make_encoder(work.encoder, [*about, *(one.whole for one in said)], work.out / "encoded")
        row_ids, places = readable(work.dataset, told)
        arrays: dict[str, npt.NDArray[Any]] = {
            "row_ids": row_ids,
            "places": places,
            "users": told.users,
            "newest_event": told.newest,
            "user_vectors": step_vectors(encoder, said),
            "item_vectors": encoder.encode(about),
        }
        manifest = {
            "generator": dict(work.generator.settings),
            "small": teacher_facts,
            "encoder": encoder.name,
            "domain": self.domain,
            "cuts": list(self.cuts),
            "most": self.most,
            "keep": self.keep,
            "each_row": list(self.each_row),
            "texts": {"users": len(known)},
            "without_text": {"users": len(made) - len(known)},
            "steps_said": {
                step: sum(bool(one.texts[k]) for one in said)
                for k, step in enumerate(("preferences", "categories", "items"))
            },
        }
        table = user_table(work.dataset, made, requests, users)
        return Words(self.name, arrays, manifest), {"users": with_steps(table)}, encoder


def item_texts(catalogue: Catalogue) -> list[str]:
    """Return f_i, what is known of each item: its title and the other columns; empty without a title."""
    columns = [
        name for name in catalogue.frame.columns if name not in (*_IDS, "title") and _is_text(catalogue, name)
    ]
    rows = catalogue.frame.select("title", *columns).fill_null("").iter_rows()
    return [". ".join(part for part in row if part) if row[0] else "" for row in rows]


def _is_text(catalogue: Catalogue, column: str) -> bool:
    return catalogue.frame[column].dtype == pl.String


def step_vectors(encoder: WordEncoder, said: Sequence[Rationale]) -> Floats:
    """Return ``(V, 4, D)``: the three steps, and all of them as one text."""
    parts = [[one.texts[k] for one in said] for k in range(3)] + [[one.whole for one in said]]
    if not said:
        return np.zeros((0, 4, 1), dtype=np.float32)
    return np.stack([encoder.encode(part) for part in parts], axis=1)


def with_steps(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table of texts with the steps that were read out of them beside."""
    said = [parse_rationale(text) if text else Rationale() for text in table["text"]]
    return table.with_columns(
        preferences=pl.Series([one.preferences for one in said], dtype=pl.String),
        categories=pl.Series([list(one.categories) for one in said], dtype=pl.List(pl.String)),
        items=pl.Series([list(one.items) for one in said], dtype=pl.List(pl.String)),
    )
