"""Which factors matter for liking an item: asked of the model once a domain, shown, kept, and open to a person's hand.

KAR calls it factorisation prompting: the factors are elicited from a language model, looked over by a person, and then
are the same in every prompt about a user or an item.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recdistill.errors import KnowledgeError, RunError
from recdistill.runs import read_json, write_json
from recdistill.teachers.backends.base import GenerationRequest
from recdistill.teachers.rationales.wording import Domain, kar_factors

if TYPE_CHECKING:
    from recdistill.teachers.rationales.asking import Work

#: In the folder of the rationales.
FILE: Final = "factors.json"
_LEAST, _MOST, _SIGNS = 2, 12, 80  # factors of a list, and how long one may be
_LISTED = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*(?P<rest>.+)$")


def factor_request(words: Domain) -> GenerationRequest:
    """Return the one question of the elicitation."""
    return GenerationRequest(0, kar_factors(words))


def kept_factors(folder: Path) -> tuple[str, ...] | None:
    """Return the factors that were asked for before, perhaps changed by hand since; None: nobody asked yet.

    Raises
    ------
    RunError
        The file is no list of names.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    said = read_json(path).get("factors")
    if (
        not isinstance(said, list)
        or not said
        or not all(isinstance(one, str) and one.strip() for one in said)
    ):
        raise RunError(
            f'{path} says {said!r}. Allowed: {{"factors": ["one", "another"]}}. Mend it, or delete it and ask anew: '
            "recdistill rationales kar ... factors=ask"
        )
    return tuple(one.strip() for one in said)


def ask_factors(work: Work, words: Domain, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the factors in the folder, or ask for them and keep them there.

    Parameters
    ----------
    work
        Who is asked, and the folder.
    words
        The domain.
    settings
        What else decides the question.

    Raises
    ------
    KnowledgeError
        The answer names fewer than two factors. Nothing takes their place.
    """
    found = kept_factors(work.out)
    if found is None:
        request = factor_request(words)
        reply = work.ask("factors", [request], {**settings, "prompt": request.prompt_hash})[request.key]
        found = parse_factors(reply.text)
        if len(found) < _LEAST:
            raise KnowledgeError(
                f"the model names {len(found)} factors in {reply.text[:200]!r} {reply.problem}. Needed: at least "
                f"{_LEAST}, as a list. Give them yourself with factors=[genre,mood], or leave factors out for the "
                "domain's."
            )
        write_json(
            work.out / FILE, {"factors": list(found), "prompt": request.prompt_hash, "answer": reply.text}
        )
        work.say(f"factors: {'; '.join(found)} (kept in {work.out / FILE})")
    return found


def parse_factors(text: str) -> tuple[str, ...]:
    """Return the factors that an answer names: a JSON list, a list with numbers or signs, or names with commas.

    Of ``name: explanation`` the name is kept; names that are long, or said twice, are left out, and more than twelve.

    Examples
    --------
    >>> parse_factors("1. Genre: what kind\\n2. Mood")
    ('Genre', 'Mood')
    """
    names = _json_list(text)
    if names is None:
        listed = [match["rest"] for match in map(_LISTED.match, text.splitlines()) if match]
        lines = text.strip().splitlines()
        names = [re.split(r":| [-–—] ", one)[0] for one in listed] or re.split(
            r"[,;]", lines[0] if lines else ""
        )
    found: dict[str, str] = {}
    for name in names:
        name = " ".join(name.split()).strip(" *_`\"'.")
        if any(sign.isalnum() for sign in name) and len(name) <= _SIGNS:
            found.setdefault(name.casefold(), name)
    return tuple(found.values())[:_MOST]


def _json_list(text: str) -> list[str] | None:
    """Return the texts of the first JSON list in a text, or None."""
    for match in re.finditer(r"\[", text):
        try:
            found = json.JSONDecoder().raw_decode(text[match.start() :])[0]
        except (ValueError, RecursionError):
            continue
        if found and all(isinstance(one, str) for one in found):
            return list(found)
    return None
