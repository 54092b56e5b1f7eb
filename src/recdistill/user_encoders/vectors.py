"""What a user encoder of rows alone becomes: one small vector a known row, added to the hidden state.

(1)  h' = M h + u_r        for a row r of which something is known; M is a matrix, or the identity
(2)  h' = h                for any other
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recdistill.user_encoders.base import KnownRows, UserEncoder


class UserVectors(UserEncoder):
    """Fixed vectors of users, eq. (1); no text and no encoder is left in it.

    Parameters
    ----------
    known
        The rows, and where their vectors are.
    vectors
        ``(V, H)`` what is added.
    mixing
        ``(H, H)`` M, or None: the identity.
    """

    mixing: Tensor | None

    def __init__(self, known: KnownRows, vectors: Tensor, mixing: Tensor | None = None) -> None:
        super().__init__(known, vectors.detach().float().clone(), persistent=True)
        self.register_buffer("mixing", None if mixing is None else mixing.detach().float().clone())

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)``, eq. (1) and (2)."""
        at = self.locate(row_ids)
        known = (at >= 0).unsqueeze(1)
        if not len(self.vectors):
            return hidden
        mixed = hidden if self.mixing is None else hidden @ self.mixing.T
        return torch.where(known, mixed + self.vectors[at.clamp_min(0)], hidden)

    def fold(self) -> UserVectors:
        """Return a copy."""
        return UserVectors(self.known(), self.vectors, self.mixing)

    @classmethod
    def from_state(cls, state: dict[str, Tensor], options: Mapping[str, Any]) -> UserVectors:
        """Return what ``state_dict`` was taken from; there are no `options`.

        Raises
        ------
        KeyError
            A tensor is missing.
        """
        known = KnownRows(*(state[name].numpy() for name in ("row_ids", "places", "users", "newest")))
        return cls(known, state["vectors"], state.get("mixing"))
