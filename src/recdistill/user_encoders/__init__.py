"""User encoders: how what is known of a row's user changes the student's hidden state."""

from recdistill.user_encoders.base import KnownRows, UserEncoder, in_blocks
from recdistill.user_encoders.kar import KarUsers
from recdistill.user_encoders.slim import SlimTextUsers, SlimUsers
from recdistill.user_encoders.vectors import UserVectors

__all__ = [
    "KarUsers",
    "KnownRows",
    "SlimTextUsers",
    "SlimUsers",
    "UserEncoder",
    "UserVectors",
    "in_blocks",
]
