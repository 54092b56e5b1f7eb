"""SLIM on the user side: rationale and hidden state fused, or the rationale alone.

See `recdistill.item_encoders.slim`. Of P steps of the rationale that are read apart, with x_up the vector of step p:

(1)  s_u = g_f'([g_l(x_u1); ...; g_l(x_uP); h])           ID-based
(2)  s_u = exp(γ) sum_p softmax(ω)_p g_t(x_up)  [+ h]     ID-agnostic

ω and γ are learned; with one text P = 1, and the formulas are the paper's but for the scale exp(γ), without which the
scores of a fresh student would all be near zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recdistill.item_encoders.slim import TextTable, fusion
from recdistill.item_encoders.text_space import has_vector, into_space
from recdistill.user_encoders.base import KnownRows, UserEncoder, in_blocks
from recdistill.user_encoders.vectors import UserVectors


class SlimUsers(UserEncoder):
    """Rationale and hidden state fused, eq. (1).

    Parameters
    ----------
    known
        Rows and the places of their rationales.
    texts
        ``(V, P, r)`` vectors of the steps in their fixed space; zero for a step that was not said.
    reader
        g_l, shared with the item side.
    size
        H.
    """

    def __init__(self, known: KnownRows, texts: Tensor, reader: nn.Linear, size: int) -> None:
        super().__init__(known, texts.float())
        self.reader = reader
        self.fusion = fusion(texts.shape[1] * reader.out_features, size)

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)`` s_u, or h where nothing is known."""
        if not len(self.vectors):
            return hidden
        at = self.locate(row_ids)
        fused = self.fusion(torch.cat([self._read(self.vectors[at.clamp_min(0)]), hidden], dim=1))
        return torch.where((at >= 0).unsqueeze(1), fused, hidden)

    def _read(self, texts: Tensor) -> Tensor:
        read: Tensor = self.reader(texts) * has_vector(texts).unsqueeze(-1)  # (S, P, H)
        return read.flatten(1)

    @torch.no_grad()
    def fold(self) -> UserVectors:
        """Return the text's share of s_u for every rationale, and the matrix that meets h."""
        size = self.fusion.out_features
        text, own = self.fusion.weight[:, :-size], self.fusion.weight[:, -size:]
        parts = [
            self._read(self.vectors[block]) @ text.T + self.fusion.bias
            for block in in_blocks(len(self.vectors))
        ]
        return UserVectors(self.known(), torch.cat([own.new_zeros((0, size)), *parts]), own)


class SlimTextUsers(UserEncoder):
    """The rationale alone, eq. (2).

    Parameters
    ----------
    known
        Rows and the places of their rationales.
    vectors
        ``(V, P, D)`` as the text encoder gave them; zero for a step that was not said.
    text_table
        g_t, shared with the item side.
    history
        Whether h is added.
    scale
        exp(γ) at the start.
    """

    def __init__(
        self,
        known: KnownRows,
        vectors: Tensor,
        text_table: TextTable,
        *,
        history: bool = False,
        scale: float = 100.0,
    ) -> None:
        super().__init__(known, into_space(vectors, text_table.mean, text_table.matrix))
        self.text_table, self.history = text_table, history
        self.steps = nn.Parameter(torch.zeros(vectors.shape[1]))
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)`` s_u, or h where nothing is known."""
        if not len(self.vectors):
            return hidden
        at = self.locate(row_ids)
        said = self._formed(self.vectors[at.clamp_min(0)])
        return torch.where((at >= 0).unsqueeze(1), said + hidden if self.history else said, hidden)

    def _formed(self, texts: Tensor) -> Tensor:
        there = has_vector(texts)  # (S, P)
        formed = self.text_table.formed(texts, there) * there.unsqueeze(-1)  # (S, P, H)
        return self.log_scale.exp() * (formed * self.steps.softmax(0).unsqueeze(-1)).sum(1)

    @torch.no_grad()
    def fold(self) -> UserVectors:
        """Return s_u of every rationale; without the history, the matrix that meets h is zero."""
        size = self.text_table.exit.out_features
        weight = self.text_table.exit.weight
        parts = [self._formed(self.vectors[block]) for block in in_blocks(len(self.vectors))]
        mixing = None if self.history else weight.new_zeros((size, size))
        return UserVectors(self.known(), torch.cat([weight.new_zeros((0, size)), *parts]), mixing)
