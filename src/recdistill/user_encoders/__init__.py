"""User encoders: how what is known of a row's user changes the student's hidden state."""

from typing import Final

from recdistill.user_encoders.base import KnownRows, UserEncoder, in_blocks
from recdistill.user_encoders.examples import Examples
from recdistill.user_encoders.kar import KarUsers
from recdistill.user_encoders.llm_cf import LlmCf
from recdistill.user_encoders.reading import InContextTokens
from recdistill.user_encoders.slim import SlimTextUsers, SlimUsers
from recdistill.user_encoders.vectors import UserVectors

#: What they become at export, by `UserEncoder.saved_as`.
SAVED: Final[dict[str, type[UserVectors] | type[InContextTokens]]] = {
    "vectors": UserVectors,
    "in_context": InContextTokens,
}

__all__ = [
    "SAVED",
    "Examples",
    "InContextTokens",
    "KarUsers",
    "KnownRows",
    "LlmCf",
    "SlimTextUsers",
    "SlimUsers",
    "UserEncoder",
    "UserVectors",
    "in_blocks",
]
