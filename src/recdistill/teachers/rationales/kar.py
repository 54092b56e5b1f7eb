"""KAR: what a language model knows of a user's taste and of each item, along the same factors.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024,
https://arxiv.org/abs/2306.10933.

=================  ==================  ===========  =====================================================
symbol             name in code        default      where the default comes from
=================  ==================  ===========  =====================================================
share of history   cuts                [0.5]        authors' code: ceil(n / 2) of a user's events
cap                most                15           authors' code: 15 for books (30 for films)
factors            factors, domain     per domain   "factorisation prompting"; ours in `wording`
=================  ==================  ===========  =====================================================

Where the authors' code differs
1. It tests on users of whom nothing was trained. Here time decides: a text may be read by rows whose answer came after
   all it was written of, and every other row has no text (spec 3.1).
2. It encodes a user's prompt and answer together and cuts both at 512 tokens, which drops the answer. Here the answer
   alone is encoded, in pieces.
3. A user or item without an answer stops it. Here it is recorded and masked.
4. Stars and what the users told of themselves are in its prompts; a `SequenceDataset` has neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.errors import ConfigError
from recdistill.knowledge.words import Words
from recdistill.teachers.backends.base import GenerationRequest
from recdistill.teachers.rationales.asking import (
    Reply,
    Requests,
    Work,
    known_moments,
    user_table,
)
from recdistill.teachers.rationales.encoding import WordEncoder, make_encoder
from recdistill.teachers.rationales.factors import ask_factors, factor_request, kept_factors
from recdistill.teachers.rationales.moments import Keep, Moments, moments, readable
from recdistill.teachers.rationales.wording import Domain, domain, fitted, kar_item, kar_user
from recdistill.types import Split

#: The value of `Kar.factors` that lets the language model name them.
ASK: Final = "ask"


@dataclass(frozen=True)
class Kar:
    """Writes KAR's knowledge.

    Attributes
    ----------
    domain
        Which words: films, games, toys, books, generic.
    factors
        Instead of the domain's: a list; or ``ask``, and the language model is asked for them once, see
        `recdistill.teachers.rationales.factors`.
    cuts, most, keep, each_row
        When a user is described and of what, see `recdistill.teachers.rationales.moments.moments`.
    users, items
        Which of the two sides is asked about; items alone cost least.

    Raises
    ------
    ConfigError
        Neither side is asked about, the domain does not exist, or `factors` is another word than ``ask``.
    """

    name: ClassVar[str] = "kar"
    domain: str = "generic"
    factors: Sequence[str] | Literal["ask"] = ()
    cuts: Sequence[float] = (0.5,)
    most: int = 15
    keep: Keep = "first"
    each_row: Sequence[Split] = field(default_factory=tuple)
    users: bool = True
    items: bool = True

    def __post_init__(self) -> None:
        if not (self.users or self.items):
            raise ConfigError(
                "users and items are both off, so nothing would be asked. Allowed: one or both. Leave out users=false."
            )
        if isinstance(self.factors, str) and self.factors != ASK:
            raise ConfigError(
                f"factors is {self.factors!r}. Allowed: a list, or {ASK}. Pass factors=[genre,mood] or factors={ASK}."
            )
        _ = self.words

    @property
    def words(self) -> Domain:
        """The domain's words, with the factors that were given."""
        return domain(self.domain, () if self.factors == ASK else self.factors)

    def words_in(self, folder: Path) -> Domain:
        """The same with the factors that were asked for and lie in `folder`; until then the domain's stand for them."""
        return domain(
            self.domain, (kept_factors(folder) if self.factors == ASK else None) or self.words.factors
        )

    def moments(self, work: Work) -> Moments:
        """Return when users are described; none where they are not asked about."""
        if not self.users:
            none = np.zeros(0, dtype=np.int64)
            return Moments(none, none, none)
        return moments(work.dataset, self.cuts, most=self.most, keep=self.keep, each_row=self.each_row)

    def asks(self, work: Work) -> dict[str, Requests]:
        """Return the prompts: for factors, of items by item, of users by the newest event that is told."""
        titles, words = work.dataset.catalogue.titles, self.words_in(work.out)
        items = [
            GenerationRequest(item, kar_item(words, title))
            for item, title in enumerate(titles)
            if title and self.items
        ]
        users = user_requests(work, self.moments(work), words)
        open_yet = self.factors == ASK and kept_factors(work.out) is None
        factors = [factor_request(self.words)] if open_yet else []
        kinds = (("factors", factors), ("items", items), ("users", users))
        return {name: requests for name, requests in kinds if requests}

    def make(self, work: Work) -> tuple[Words, dict[str, pl.DataFrame], WordEncoder]:
        """Ask, factors first, then items, and encode both sides with one encoder."""
        if self.factors == ASK:
            ask_factors(work, self.words, {"maker": self.name})
        words = self.words_in(work.out)
        asked, data = self.asks(work), work.dataset
        settings = {"maker": self.name, "prompt": words.fingerprint}
        items = work.ask("items", asked.get("items", ()), settings)
        made, requests = self.moments(work), asked.get("users", ())
        said = work.ask("users", requests, settings)
        users = [said[request.key] for request in requests]
        known = known_moments(made, users)
        told = Moments(made.users[known], made.starts[known], made.newest[known])
        facts = [items.get(item, Reply("")).text for item in range(data.item_count)]
        texts, about = [users[k].text for k in known], sum(map(bool, facts))
        encoder = make_encoder(work.encoder, [*facts, *texts], work.out / "encoded")
        row_ids, places = readable(data, told)
        arrays: dict[str, npt.NDArray[Any]] = {
            "row_ids": row_ids,
            "places": places,
            "users": told.users,
            "newest_event": told.newest,
            "user_vectors": encoder.encode(texts) if texts else np.zeros((0, 1), dtype=np.float32),
            "item_vectors": encoder.encode(facts),
        }
        manifest = {
            "generator": dict(work.generator.settings),
            "encoder": encoder.name,
            "domain": self.domain,
            "factors": list(words.factors),
            "factors_asked": self.factors == ASK,
            "cuts": list(self.cuts),
            "most": self.most,
            "keep": self.keep,
            "each_row": list(self.each_row),
            "texts": {"users": len(known), "items": about} if self.items else {"users": len(known)},
            "without_text": {"users": len(made) - len(known), "items": len(facts) - about},
        }
        tables = {"items": item_table(asked.get("items", ()), items)}
        if self.users:
            tables["users"] = user_table(data, made, requests, users)
        return Words(self.name, arrays, manifest), tables, encoder


def user_requests(work: Work, made: Moments, words: Domain) -> list[GenerationRequest]:
    """Return KAR's prompts about users, as many of the newest told titles in each as fit."""
    titles, requests = work.dataset.catalogue.titles, []
    for moment in range(len(made)):
        told = [titles[item] for item in made.told(work.dataset, moment) if titles[item]]
        prompt = fitted(partial(kar_user, words), told, work.encode, work.room)
        requests.append(GenerationRequest(int(made.newest[moment]), prompt))
    return requests


def item_table(requests: Requests, replies: dict[int, Reply]) -> pl.DataFrame:
    """Return a table of texts about items: columns ``item``, ``prompt`` (hash), ``text``, ``problem``."""
    return pl.DataFrame(
        {
            "item": [request.key for request in requests],
            "prompt": [request.prompt_hash for request in requests],
            "text": [replies[request.key].text for request in requests],
            "problem": [replies[request.key].problem for request in requests],
        },
        schema={"item": pl.Int64, "prompt": pl.String, "text": pl.String, "problem": pl.String},
    )
