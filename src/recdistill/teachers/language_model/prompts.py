"""From a history of titles to a prompt, and from a generated text back to a title.

One `PromptTemplate` renders what a language model is trained on and what it is asked, so the two are the same bytes.
The prompt ends with a line break and the completion begins with a quotation mark, so that no token spans the
border between them. The fixed text comes first and the history last: prompts share their beginning.
"""

from __future__ import annotations

import html
import json
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from recdistill.errors import ConfigError, unknown_name
from recdistill.runs import fingerprint

_TITLE: Final = "{title}"
_QUOTES: Final = '"“”„«»'


@dataclass(frozen=True)
class PromptTemplate:
    """The words around the titles. A prompt is the fields in this order, one after the other.

    Attributes
    ----------
    header
        What kind of text follows.
    instruction
        What is asked.
    history_prefix
        What stands before the titles.
    item_format
        How one title is written; holds ``{title}`` once.
    separator
        Between two titles.
    history_suffix
        After the last title.
    response_prefix
        What announces the answer; ends with a line break, so that the answer begins a token of its own.

    Raises
    ------
    ConfigError
        `item_format` does not hold ``{title}`` once, `response_prefix` does not end with a line break, or a field is
        no text.
    """

    header: str
    instruction: str
    history_prefix: str
    item_format: str = '"{title}"'
    separator: str = ", "
    history_suffix: str = "\n\n"
    response_prefix: str = "### Answer:\n"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                raise ConfigError(
                    f"{field.name} of the prompt template is {value!r}. Allowed: text. Quote it."
                )
        if self.item_format.count(_TITLE) != 1:
            raise ConfigError(
                f'item_format is {self.item_format!r}. Allowed: a text with {_TITLE} in it once, as in "{_TITLE}". '
                "Mend the template file."
            )
        if not self.response_prefix.endswith("\n"):
            raise ConfigError(
                f"response_prefix is {self.response_prefix!r}. Allowed: a text that ends with a line break, or a token "
                "could span prompt and answer. Add a line break at its end."
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all fields."""
        return fingerprint(json.dumps(asdict(self), sort_keys=True))

    def item(self, title: str) -> str:
        """Return one title as it is written in a list."""
        return self.item_format.replace(_TITLE, title)

    def items(self, titles: Sequence[str]) -> str:
        """Return the list of titles, oldest first."""
        return self.separator.join(self.item(title) for title in titles)

    def prompt(self, titles: Sequence[str]) -> str:
        """Return the prompt for a history of titles, oldest first."""
        before = f"{self.header}{self.instruction}{self.history_prefix}"
        return f"{before}{self.items(titles)}{self.history_suffix}{self.response_prefix}"

    def completion(self, title: str) -> str:
        """Return the answer as it is trained: the title as it is written in the list. The end token comes after it."""
        return self.item(title)

    def fit(
        self, titles: Sequence[str], encode: Callable[[str], Sequence[int]], max_tokens: int, reserve: int = 0
    ) -> str:
        """Return the prompt of the most of the newest titles for which prompt and answer fit.

        Parameters
        ----------
        titles
            Oldest first; the oldest are dropped, if need be all.
        encode
            Text to tokens, with the begin token if there is one.
        max_tokens
            Tokens for prompt and answer together.
        reserve
            Tokens of the answer and its end.

        Raises
        ------
        ConfigError
            The prompt does not fit even without titles.
        """
        newest = list(reversed(titles))
        whole = self.prompt(titles)
        if len(encode(whole)) <= max_tokens - reserve:
            return whole
        # bisect_left finds the smallest count that is too much; the length grows with the count
        too_many = bisect_left(
            range(1, len(titles)),
            True,
            key=lambda count: len(encode(self.prompt(newest[:count][::-1]))) > max_tokens - reserve,
        )
        text = self.prompt(newest[:too_many][::-1])
        if not too_many and len(encode(text)) > max_tokens - reserve:
            raise ConfigError(
                f"the prompt takes {len(encode(text))} tokens without any title, and {reserve} are kept for the "
                f"answer: more than {max_tokens} in all. Allowed: prompts that fit. Pass a larger --max-tokens, or a "
                "shorter template."
            )
        return text


def _template(what: str, done: str, noun: str) -> PromptTemplate:
    """Return the template of a domain: ``watched`` ``films``, one ``film``."""
    return PromptTemplate(
        header="Here is a task with the facts that belong to it. Give the answer that solves the task.\n\n",
        instruction=(
            f"### Task:\nA person has {done} the {what} below, the earliest first. Recommend one new {noun} that this "
            "person will like.\n\n"
        ),
        history_prefix=f"### Facts:\nThe person has {done} these {what}: ",
    )


#: Templates by domain.
PROMPT_TEMPLATES: Final[dict[str, PromptTemplate]] = {
    "films": _template("films", "watched", "film"),
    "games": _template("games", "played", "game"),
    "toys": _template("toys", "bought", "toy"),
    "books": _template("books", "read", "book"),
    "generic": _template("items", "chosen", "item"),
}


def load_template(name_or_path: str | Path) -> PromptTemplate:
    """Return a template by its domain, or from a JSON or YAML file with the fields of `PromptTemplate`.

    Raises
    ------
    ConfigError
        There is neither such a domain nor such a file, the file cannot be read, or a field is unknown, missing or
        wrong.
    """
    if str(name_or_path) in PROMPT_TEMPLATES:
        return PROMPT_TEMPLATES[str(name_or_path)]
    path = Path(name_or_path)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise unknown_name("domain", str(name_or_path), [*PROMPT_TEMPLATES, "FILE.json", "FILE.yaml"])
    known = {field.name for field in fields(PromptTemplate)}
    content = _read(path)
    for name in content:
        if name not in known:
            raise unknown_name(f"field of {path}", str(name), known)
    needed = [name for name in ("header", "instruction", "history_prefix") if name not in content]
    if needed:
        raise ConfigError(
            f"{path} has no field {', '.join(needed)}. A template needs header, instruction and history_prefix "
            f"(allowed besides: {', '.join(sorted(known))}). Add what is missing."
        )
    return PromptTemplate(**content)


def _read(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the template {path} cannot be read ({reason}). Allowed: {', '.join(PROMPT_TEMPLATES)}, or a JSON or YAML "
            "file with header, instruction and history_prefix. Mend the file."
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"the template {path} holds {type(content).__name__}. Allowed: fields with text, such as header: ... "
            "Mend the file."
        )
    return content


def normalise_answer(text: str) -> str:
    """Return the one form in which titles and generated texts are compared and embedded.

    The first line that is not empty counts; HTML entities are unescaped, Unicode is brought to form NFC, white space is
    collapsed, and all quotation marks at both ends are taken off. The form of a completion is the form of its
    title, and a second application changes nothing.

    Examples
    --------
    >>> normalise_answer(' "Tom Clancy&#39;s   Ghost Recon"\\n\\n### Task:')
    "Tom Clancy's Ghost Recon"
    """
    lines = [line for line in text.splitlines() if line.strip(f" \t{_QUOTES}")]
    line = lines[0] if lines else ""
    while (shorter := _normalised(line)) != line:
        line = shorter
    return line


def _normalised(line: str) -> str:
    words = unicodedata.normalize("NFC", html.unescape(line)).split()
    return " ".join(words).strip(f" {_QUOTES}")
