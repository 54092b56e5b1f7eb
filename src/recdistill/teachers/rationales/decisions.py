"""Which decisions a language model is asked to explain, and in what words.

A decision is a training row's history, one item, and whether it was the item that came next. Rows are drawn
uniformly. Logs tell what was chosen and never what was refused, so a share of the rows is asked about an item that was
not chosen then: one that other people had chosen earlier, drawn from all their choices, which neither the row's
history nor its target names. What the same person chooses later plays no part in the draw: it would be the future.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recdistill.data.clock import RowClock
from recdistill.data.sequences import Ints, SequenceDataset
from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.backends.base import GenerationRequest
from recdistill.teachers.language_model.prompts import PromptTemplate
from recdistill.types import PAD

_TRIES: Final = 32  # draws of a refused item before the row is asked about its own target

#: ``(done, what, noun)`` by domain.
_WORDS: Final[dict[str, tuple[str, str, str]]] = {
    "films": ("watched", "films", "film"),
    "games": ("played", "games", "game"),
    "toys": ("bought", "toys", "toy"),
    "books": ("read", "books", "book"),
    "generic": ("chosen", "items", "item"),
}
DOMAINS: Final[tuple[str, ...]] = tuple(_WORDS)

#: What a whole explanation speaks of, in the order in which it is asked for.
ASPECTS: Final[tuple[str, ...]] = (
    "What was chosen before shows the taste of this person.",
    "This is what the item is, and these are similar ones.",
    "The item fits this taste, or it does not.",
    "The person wants more of the same, or a change.",
)


@dataclass(frozen=True, eq=False)
class Decisions:
    """What is asked about.

    Attributes
    ----------
    rows
        ``(n,)`` positions of training rows, ascending.
    items
        ``(n,)`` the item in question.
    labels
        ``(n,)`` bool, whether it was chosen.
    """

    rows: Ints
    items: Ints
    labels: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)


def draw_decisions(
    dataset: SequenceDataset,
    texts: Sequence[str],
    *,
    share: float = 0.1,
    refused: float = 0.5,
    last_items: int = 10,
    seed: int = 0,
) -> Decisions:
    """Draw training rows, and for some of them an item that was not chosen.

    Parameters
    ----------
    dataset
        The rows; those of ``prefix`` are not asked about.
    texts
        I texts; rows whose target, or whose whole history, has none are not drawn.
    share
        Of the training rows, in (0, 1].
    refused
        Share of the drawn rows that are asked about an item that was not chosen, in [0, 1]. A row that no other
        choice precedes is asked about its own.
    last_items
        How many of the last items a prompt tells.
    seed
        Of both draws.

    Raises
    ------
    ConfigError
        A share is out of range, or no row can be asked about.
    """
    if not 0 < share <= 1 or not 0 <= refused <= 1 or last_items < 1:
        raise ConfigError(
            f"share is {share}, refused {refused}, last_items {last_items}. Allowed: above 0 to 1, 0 to 1, from 1. "
            "Pass --share 0.1 --refused 0.5."
        )
    known = np.array([bool(text) for text in texts])
    train = dataset.rows("train")
    history = dataset.histories(train, last_items)
    told = (known[np.maximum(history, 0)] & (history != PAD)).any(1) & known[dataset.targets(train)]
    train = train[told]
    if not len(train):
        raise ConfigError(
            f"dataset {dataset.name!r} has no training row whose items have a text. Needed: titles. See what there is "
            "with: recdistill data stats"
        )
    generator = np.random.default_rng(seed)
    count = min(len(train), max(1, round(share * len(dataset.rows("train")))))
    rows = np.sort(generator.choice(train, count, replace=False))
    asked = np.flatnonzero(generator.random(count) < refused)
    items = dataset.targets(rows)
    items[asked] = _refused(dataset, train, rows[asked], generator)
    return Decisions(rows, items, items == dataset.targets(rows))


def _refused(dataset: SequenceDataset, train: Ints, rows: Ints, generator: np.random.Generator) -> Ints:
    """Return ``(n,)`` an item for each row that was chosen earlier by somebody, and not by this row's person yet."""
    times = RowClock.of(dataset).times
    past = train[np.argsort(times[train], kind="stable")]
    before = np.searchsorted(times[past], times[rows])  # choices earlier than each row
    choices, targets, count = dataset.targets(past), dataset.targets(rows), dataset.item_count
    owners, items = dataset.seen(rows)
    taken = np.unique(np.concatenate([owners * count + items, np.arange(len(rows)) * count + targets]))
    found = targets.copy()
    open_rows = np.flatnonzero(before)
    for _ in range(_TRIES):
        if not len(open_rows):
            break
        drawn = choices[(generator.random(len(open_rows)) * before[open_rows]).astype(np.int64)]
        free = ~np.isin(open_rows * count + drawn, taken)
        found[open_rows[free]] = drawn[free]
        open_rows = open_rows[~free]
    return found


@dataclass(frozen=True)
class Explaining:
    """The words of the question.

    Attributes
    ----------
    domain
        A name in `DOMAINS`.

    Raises
    ------
    ConfigError
        There is no such domain.
    """

    domain: str = "generic"

    def __post_init__(self) -> None:
        if self.domain not in _WORDS:
            raise unknown_name("domain", self.domain, _WORDS)

    def template(self, item: str, chosen: bool) -> PromptTemplate:
        """Return the template of one decision: item and outcome are told after the history."""
        done, what, noun = _WORDS[self.domain]
        outcome = "took it" if chosen else "did not take it"
        return PromptTemplate(
            header="Below is a decision of a person. It is known how it ended; say why.\n\n",
            instruction=(
                f"### Task:\nA person has {done} some {what}, the earliest first, and then saw another {noun}. Explain "
                "the decision step by step: the person's taste; what the "
                f"{noun} is and what is similar; how well both fit; whether the person wants more of the same or a "
                "change. Write a few plain sentences.\n\n"
            ),
            history_prefix=f"### Facts:\nThe person has {done} these {what}: ",
            history_suffix=f'\nThe other {noun}: "{item}"\nThe person {outcome}.\n\n',
            response_prefix="### Explanation:\n",
        )

    @property
    def fixed(self) -> str:
        """The words that every prompt has: an answer that repeats them explains nothing."""
        template = self.template("", True)
        return f"{template.header} {template.instruction}"


def decision_sentence(item: str, chosen: bool) -> str:
    """Return the decision as one sentence, which an explanation should agree with."""
    return f'The person took "{item}".' if chosen else f'The person did not take "{item}".'


def decision_requests(
    dataset: SequenceDataset,
    decisions: Decisions,
    texts: Sequence[str],
    words: Explaining,
    *,
    last_items: int = 10,
    encode: Callable[[str], Sequence[int]] | None = None,
    max_tokens: int = 512,
    reserve: int = 0,
) -> list[GenerationRequest]:
    """Return one request a decision, keyed by row id.

    Parameters
    ----------
    dataset, decisions, texts
        What is asked about, and how each of the I items is called.
    words
        How it is asked.
    last_items
        How many of the last items are told; those without a text are left out.
    encode
        Text to tokens, where the model is here: the oldest items are dropped where a prompt is too long.
    max_tokens, reserve
        Tokens of prompt and answer together, and of the answer.

    Raises
    ------
    ConfigError
        A prompt does not fit even without a history.
    """
    histories = dataset.histories(decisions.rows, last_items).tolist()
    keys = dataset.row_ids[decisions.rows].tolist()
    requests = []
    for key, history, item, chosen in zip(
        keys, histories, decisions.items.tolist(), decisions.labels.tolist(), strict=True
    ):
        template = words.template(texts[item], chosen)
        told = [texts[old] for old in history if old >= 0 and texts[old]]
        prompt = (
            template.prompt(told)
            if encode is None
            else template.fit(told, encode, max_tokens, reserve=reserve)
        )
        requests.append(GenerationRequest(key, prompt))
    return requests
