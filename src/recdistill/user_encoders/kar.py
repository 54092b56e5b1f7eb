"""KAR on the user side: h' = h + σ(θ) W v_u, v_u from what a language model wrote about the row's user.

See `recdistill.item_encoders.kar`. The text is one of earlier events alone; which row may read which text is
decided where it was written (`recdistill.teachers.rationales.moments`) and checked where it is read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recdistill.item_encoders.experts import HybridExperts
from recdistill.user_encoders.base import KnownRows, UserEncoder, in_blocks
from recdistill.user_encoders.vectors import UserVectors


class KarUsers(UserEncoder):
    """Adds to the hidden state what is known of the user from words.

    Parameters
    ----------
    known
        Rows and the places of their texts.
    texts
        ``(V, r)`` vectors of the texts in their fixed space.
    experts
        The adaptor, shared with the item side.
    size
        H.
    gate
        θ at the start; W starts at 0.
    """

    def __init__(
        self, known: KnownRows, texts: Tensor, experts: HybridExperts, size: int, *, gate: float = -3.0
    ) -> None:
        super().__init__(known, texts.float())
        self.experts = experts
        self.map = nn.Linear(experts.size, size, bias=False)
        nn.init.zeros_(self.map.weight)
        self.gate = nn.Parameter(torch.tensor(float(gate)))

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)`` h', or h where nothing is known."""
        if not len(self.vectors):
            return hidden
        at = self.locate(row_ids)
        unique, places = torch.unique(at.clamp_min(0), return_inverse=True)
        changed = hidden + nn.functional.embedding(places, self._formed(self.vectors[unique]))
        return torch.where((at >= 0).unsqueeze(1), changed, hidden)

    def _formed(self, texts: Tensor) -> Tensor:
        added: Tensor = torch.sigmoid(self.gate) * self.map(self.experts(texts, "user"))
        return added

    @torch.no_grad()
    def fold(self) -> UserVectors:
        """Return σ(θ) W v of every text: neither texts nor the adaptor are kept."""
        parts = [self._formed(self.vectors[block]) for block in in_blocks(len(self.vectors))]
        empty = self.map.weight.new_zeros((0, self.map.out_features))
        return UserVectors(self.known(), torch.cat([empty, *parts]))
