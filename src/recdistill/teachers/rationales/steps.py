"""From what a language model wrote to the three steps of a rationale, whatever shape the answer has.

Asked for JSON, models answer with JSON, with JSON in a fence or inside prose, with JSON that ends in the middle, with a
numbered list, or with prose. Nothing here raises, and nothing is made up: what is not said is empty.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from recdistill.teachers.rationales.wording import STEPS

_NAMES = {
    "preferences": ("preferences", "preference", "taste", "likes", "step 1", "step1", "1"),
    "categories": (
        "categories",
        "category",
        "brands",
        "brand",
        "categories and brands",
        "step 2",
        "step2",
        "2",
    ),
    "items": (
        "items",
        "item",
        "recommendations",
        "films",
        "games",
        "toys",
        "books",
        "titles",
        "step 3",
        "step3",
        "3",
    ),
}
_STEP_OF = {name: step for step, names in _NAMES.items() for name in names}
_HEAD = re.compile(
    r"^[\s#*\-]*(?:(?P<number>step\s*[123]|[123])\s*[.:)]\s*)?"
    r"(?:[*\"]*(?P<name>[a-z][a-z ]{2,24}?)[*\"]*\s*:[*\"]*)?\s*(?P<rest>.*)$",
    re.IGNORECASE,
)
_MOST_CUTS = 60  # how often a torn answer is cut back further
_MOST_SIGNS = 20_000  # of an answer that are looked at for its steps


@dataclass(frozen=True)
class Rationale:
    """The steps of a rationale; what was not said is empty.

    Attributes
    ----------
    preferences
        Step 1, a text.
    categories, items
        Steps 2 and 3, names.
    raw
        The whole answer.
    """

    preferences: str = ""
    categories: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    raw: str = ""

    @property
    def texts(self) -> tuple[str, str, str]:
        """The three steps as texts."""
        return self.preferences, ", ".join(self.categories), ", ".join(self.items)

    @property
    def whole(self) -> str:
        """The steps as one text."""
        return ". ".join(text for text in self.texts if text)

    @property
    def label(self) -> str:
        """What a smaller model learns to write: the JSON that was asked for."""
        said = {
            "preferences": self.preferences,
            "categories": list(self.categories),
            "items": list(self.items),
        }
        return json.dumps(said, ensure_ascii=False)


def parse_rationale(text: str) -> Rationale:
    """Return the steps of an answer; prose without steps counts as step 1.

    Examples
    --------
    >>> parse_rationale('```json\\n{"preferences": "space", "categories": ["models"], "items": ["Roc').items
    ('Roc',)
    """
    said = _json(text)
    if said is None:
        said = _headed(text)
    if not any(_names(value) for value in said.values()):
        return Rationale(preferences=" ".join(text.split()), raw=text)
    lists = {step: tuple(dict.fromkeys(_names(said.get(step)))) for step in STEPS}
    return Rationale(" ".join(lists["preferences"]), lists["categories"], lists["items"], text)


def _json(text: str) -> dict[str, Any] | None:
    """Return the first JSON object with a step in it, its keys brought to the names of the steps."""
    for match in re.finditer(r"\{", text):
        found = _object(text[match.start() : _MOST_SIGNS])
        if isinstance(found, dict):
            steps: dict[str, Any] = {}
            for key, value in found.items():
                step = _STEP_OF.get(" ".join(str(key).lower().replace("_", " ").split()))
                if step is not None:
                    steps[step] = [*_names(steps.get(step)), *_names(value)]
            if steps:
                return steps
        if match.start() > 2000:  # an answer that has not begun by now has none
            break
    return None


def _object(text: str) -> Any:
    """Return the JSON value that `text` begins with, mended if it is cut off; None if there is none."""
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass
    end = len(text)
    for _ in range(_MOST_CUTS):
        piece = text[:end].rstrip().rstrip(",:").rstrip()
        try:
            return json.loads(piece + _closing(piece))
        except (ValueError, RecursionError):
            end = max(piece.rfind(sign) for sign in ',:"[')
            if end < 1:
                return None
    return None


def _closing(text: str) -> str:
    """Return what closes the strings, lists and objects that are open at the end of a text."""
    stack, inside, escaped = [], False, False
    for sign in text:
        if inside:
            escaped, inside = (sign == "\\" and not escaped), not (sign == '"' and not escaped)
        elif sign == '"':
            inside = True
        elif sign in "{[":
            stack.append("}" if sign == "{" else "]")
        elif sign in "}]" and stack:
            stack.pop()
    return ('"' if inside else "") + "".join(reversed(stack))


def _headed(text: str) -> dict[str, list[str]]:
    """Return the steps of a text with a heading or a number before each; nothing where there is none."""
    steps: dict[str, list[str]] = {}
    now = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        name = _step_name(head)
        rest = line
        if head is not None and name and not (name in steps and now == name):
            now, rest = name, head["rest"]
        if now and rest.strip():
            whole = now == "preferences"
            steps.setdefault(now, []).extend([rest.strip()] if whole else _split(rest))
    return steps


def _step_name(head: re.Match[str] | None) -> str:
    if head is None:
        return ""
    spoken = " ".join((head["name"] or "").lower().split())
    number = " ".join((head["number"] or "").lower().split())
    return _STEP_OF.get(spoken) or (_STEP_OF.get(number, "") if not spoken else "")


def _split(text: str) -> list[str]:
    """Return the names in a line: with commas, semicolons or list signs between."""
    return [part.strip(" \t-*•\"'.") for part in re.split(r"[;,]|\band\b", text)]


def _names(value: Any) -> list[str]:
    """Return the texts in a JSON value, however deep they lie."""
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, (list, tuple)):
        return [name for part in value for name in _names(part)]
    if isinstance(value, dict):
        return [name for part in value.values() for name in _names(part)]
    text = " ".join(str(value).split())
    return [text] if text else []
