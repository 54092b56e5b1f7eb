"""How much one request may ask for. Whoever asks for more is told the limit."""

from __future__ import annotations

from dataclasses import dataclass, fields

from recdistill.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """The largest request.

    Attributes
    ----------
    history
        Items of one history.
    batch
        Histories of one request.
    k
        Items of one list.
    names
        Entries of `allow`, `deny` or `candidates`, and values of a category.
    name_length
        Signs of an id or a title.
    query_length
        Signs of a title search.
    body
        Bytes of a request's body.
    body_seconds
        Seconds in which a request's head, and then its body, must arrive.
    connections
        Connections at the same time; further ones are answered 503.
    """

    history: int = 1000
    batch: int = 256
    k: int = 1000
    names: int = 10_000
    name_length: int = 1000
    query_length: int = 200
    body: int = 1 << 20
    body_seconds: float = 10.0
    connections: int = 4096

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"the limit {field.name} is {value}. Allowed: above 0.")


class LimitError(ConfigError):
    """A request is larger than a limit."""

    def __init__(self, what: str, value: float, limit: float, unit: str) -> None:
        super().__init__(f"{what} has {value:,} {unit}. Allowed: at most {limit:,}.")
