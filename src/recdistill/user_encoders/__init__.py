"""User encoders: how what is known of a row's user changes the student's hidden state."""

from typing import Final

from recdistill.user_encoders.base import KnownRows, UserEncoder, in_blocks
from recdistill.user_encoders.vectors import UserVectors

#: By name, for configs; `UserVectors` is what all become at export and is not chosen.
USER_ENCODERS: Final[dict[str, type[UserEncoder]]] = {}

__all__ = [
    "USER_ENCODERS",
    "KnownRows",
    "UserEncoder",
    "UserVectors",
    "in_blocks",
]
