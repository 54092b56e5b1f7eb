"""The words of the prompts, by domain. Ours; a prompt asks for the same things as its paper's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from recdistill.errors import ConfigError, unknown_name
from recdistill.runs import fingerprint


@dataclass(frozen=True)
class Domain:
    """How one speaks of a kind of item.

    Attributes
    ----------
    items, done
        ``films``, ``watched``.
    factors
        What matters for liking one (KAR's factorised prompts): asked of a model once, looked over, kept here.
    """

    items: str
    done: str
    factors: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all fields."""
        return fingerprint(json.dumps(asdict(self), sort_keys=True))


DOMAINS: Final[dict[str, Domain]] = {
    "films": Domain(
        "films",
        "watched",
        (
            "genre",
            "director and cast",
            "country and period",
            "kind of hero",
            "plot and subject",
            "mood and tone",
            "praise and prizes",
            "pictures, production and effects",
            "music",
        ),
    ),
    "games": Domain(
        "games",
        "played",
        (
            "genre",
            "platform",
            "series and franchise",
            "studio and publisher",
            "setting and story",
            "alone or with others",
            "difficulty and pace",
            "graphics and sound",
            "age it is meant for",
        ),
    ),
    "toys": Domain(
        "toys",
        "bought",
        (
            "kind of toy or game",
            "age it is meant for",
            "brand and licence",
            "subject, such as vehicles, animals or science",
            "alone, with family or in a group",
            "learning or pure play",
            "building, collecting or acting",
            "size, material and price",
        ),
    ),
    "books": Domain(
        "books",
        "read",
        (
            "genre",
            "author",
            "country and period",
            "characters",
            "plot and subject",
            "style and length",
            "mood",
            "series",
            "praise and readership",
        ),
    ),
    "generic": Domain(
        "items",
        "chosen",
        ("kind", "brand or maker", "subject", "purpose", "style", "quality and price", "who it is meant for"),
    ),
}


def domain(name: str, factors: Sequence[str] = ()) -> Domain:
    """Return a domain by its name, with other factors if some are given.

    Raises
    ------
    ConfigError
        It does not exist.
    """
    if name not in DOMAINS:
        raise unknown_name("domain", name, DOMAINS)
    found = DOMAINS[name]
    return Domain(found.items, found.done, tuple(factors)) if factors else found


def numbered(titles: Sequence[str]) -> str:
    """Return titles as a numbered list, one a line."""
    return "\n".join(f"{number}. {title}" for number, title in enumerate(titles, 1))


def kar_factors(words: Domain) -> str:
    """Return the question that KAR begins with: which factors matter in this domain. It names none itself."""
    return (
        f"People choose among {words.items}. By which features of {words.items} can one tell what a person likes? Name "
        'eight to ten, each in one to four words, as a JSON list: ["...", "..."]\nAnswer:\n'
    )


def kar_user(words: Domain, titles: Sequence[str]) -> str:
    """Return the prompt of KAR's reasoning about a user: his history, oldest first, and the factors."""
    return (
        f"A person has {words.done} these {words.items}, the earliest first:\n{numbered(titles)}\n\n"
        f"What does this person like? Go through these points, and for each say what the list shows and by which of "
        f"its entries: {'; '.join(words.factors)}.\nAnswer:\n"
    )


def kar_item(words: Domain, title: str) -> str:
    """Return the prompt of KAR's facts about an item: the same factors, so that both speak of the same things."""
    return (
        f'Describe "{title}", one of many {words.items}, for somebody who does not know it. Say what is known of each '
        f"of these points, and leave out what is not: {'; '.join(words.factors)}.\nAnswer:\n"
    )


#: What SLIM's three steps are called in the answer.
STEPS: Final = ("preferences", "categories", "items")


def slim_user(words: Domain, titles: Sequence[str]) -> str:
    """Return SLIM's prompt: three steps, each of which builds on the one before."""
    return (
        f"A person has {words.done} these {words.items}, the earliest first:\n{numbered(titles)}\n\n"
        "Think in three steps.\n"
        "1. preferences: what does this person like? One or two sentences.\n"
        "2. categories: which categories and brands follow from that?\n"
        f"3. items: which {words.items} of these categories should be recommended next? Name some.\n"
        'Write one JSON object: {"preferences": "...", "categories": ["..."], "items": ["..."]}\nAnswer:\n'
    )


def fitted(
    render: Callable[[Sequence[str]], str],
    titles: Sequence[str],
    encode: Callable[[str], Sequence[int]] | None,
    room: int,
) -> str:
    """Return the prompt with as many of the newest titles as fit.

    Parameters
    ----------
    render
        Titles to the prompt.
    titles
        Oldest first.
    encode
        Text to tokens, or None where the tokenizer is elsewhere: nothing is cut.
    room
        Tokens that the prompt may have.

    Raises
    ------
    ConfigError
        Not even one title fits.
    """
    for start in range(max(1, len(titles))):
        text = render(titles[start:])
        if encode is None or len(encode(text)) <= room:
            return text
    raise ConfigError(
        f"the prompt takes {len(encode(text)) if encode else 0} tokens with one title, and the model has room for "
        f"{room}. Allowed: prompts that fit beside their answer. Pass a smaller --max-new-tokens, or a model that "
        "reads more."
    )
