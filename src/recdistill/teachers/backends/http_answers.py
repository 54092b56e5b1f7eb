"""What an endpoint may send back: an answer, something worth another try, or a refusal."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from recdistill.teachers.backends.base import Generation

Api = Literal["completions", "chat"]
#: Statuses that another try may change: time-outs, conflicts, too many requests, and every 5xx.
RETRIED = frozenset({408, 409, 425, 429})


class TryAgainError(Exception):
    """Another try may help; `wait` is how many seconds the endpoint asked for, if it did."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class RefusedError(Exception):
    """This request will never be answered; others may be."""


def parsed_answer(key: int, body: str, api: Api) -> Generation:
    """Read a response body.

    Texts that came with log-probabilities are sorted by them; of equal texts the best stays.

    Raises
    ------
    TryAgainError
        The body is no JSON object with choices that hold text.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        raise TryAgainError("the body is not valid JSON") from None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise TryAgainError("the body has no choices")
    found = [(_text(choice, api), _score(choice)) for choice in choices]
    if all(score is not None for _, score in found):
        found.sort(key=lambda pair: -(pair[1] or 0.0))
    best: dict[str, float | None] = {}
    for text, score in found:
        best.setdefault(text, score)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    scored = all(score is not None for score in best.values())
    return Generation(
        key,
        tuple(best),
        tuple(score or 0.0 for score in best.values()) if scored else (),
        prompt_tokens=_count(usage, "prompt_tokens"),
        new_tokens=_count(usage, "completion_tokens"),
    )


def _text(choice: Any, api: Api) -> str:
    place = choice.get("message") if api == "chat" and isinstance(choice, dict) else choice
    text = place.get("content" if api == "chat" else "text") if isinstance(place, dict) else None
    if not isinstance(text, str):
        raise TryAgainError("a choice has no text")
    return text


def _score(choice: Mapping[str, Any]) -> float | None:
    """Return the sum of a choice's token log-probabilities in either style, or None."""
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("content"), list):
        values = [token.get("logprob") if isinstance(token, dict) else None for token in found["content"]]
    else:
        values = found.get("token_logprobs") or []
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    return sum(numbers) if values and len(numbers) == len(values) else None


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def seconds_to_wait(header: str | None, *, at_most: float) -> float | None:
    """Return what a Retry-After header asks for (seconds, or a date), within 0 .. `at_most`; None without one."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), at_most) if seconds == seconds else None  # NaN is a float too


def error_text(body: str) -> str:
    """Return the message in an error body, shortened, on one line."""
    try:
        found = json.loads(body)
        found = found.get("error", found) if isinstance(found, dict) else body
        text = found.get("message", body) if isinstance(found, dict) else found
    except ValueError:
        text = body
    return " ".join(str(text).split())[:160]
