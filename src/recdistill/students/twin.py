"""Twin: two networks side by side that know nothing of each other, and whose scores are added.

EnsRec, Collins et al., 2025, https://arxiv.org/abs/2512.17820, adds the scores of a student of ids and a student of
text. With the item encoder ``two_branch``, whose vectors are [free numbers, numbers formed from text], x_a and x_t
the two halves of what a student reads:

(1)  h = [student_a(x_a), student_t(x_t)]          score of i = h . e_i = h_a . a_i + h_t . t_i

A sum of two scores is one inner product, so that losses, strategies, evaluation and saving see one student.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError, unknown_name
from recdistill.students.base import Student
from recdistill.students.gru4rec import GRU4Rec
from recdistill.students.layers import Variant
from recdistill.students.sasrec import SASRec

_BRANCHES: Final[dict[str, type[Student]]] = {"gru4rec": GRU4Rec, "sasrec": SASRec}


class Twin(Student):
    """Two students of one make, each on its part of the item vectors, eq. (1).

    Parameters
    ----------
    embedding_size
        d of both together, at least 2.
    variant
        ``"paper"`` or ``"modern"``, of both.
    max_length
        L, as for the student of the branches; None: its default.
    branch
        ``"sasrec"`` or ``"gru4rec"``.
    text_size
        Width of the second branch, from 1 to d - 1; None: half of d, as in the item encoder.
    dropout
        Of both; None: the variant's default.
    options
        Further options of both, e.g. ``{"blocks": 1}``.

    Raises
    ------
    ConfigError
        A name or a value is not allowed.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 64,
        variant: Variant = "modern",
        max_length: int | None = None,
        branch: Literal["sasrec", "gru4rec"] = "sasrec",
        text_size: int | None = None,
        dropout: float | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if branch not in _BRANCHES:
            raise unknown_name("branch of student twin", branch, _BRANCHES)
        text_size = embedding_size // 2 if text_size is None else text_size
        if not 1 <= text_size < embedding_size:
            raise ConfigError(
                f"text_size of student twin is {text_size}. Allowed: 1 to {embedding_size - 1}, below "
                "student.embedding_size. Set it with: twin.text_size=32"
            )
        self.sizes = [embedding_size - text_size, text_size]
        self.embedding_size = self.hidden_size = embedding_size
        given: dict[str, Any] = {
            "variant": variant,
            "max_length": max_length,
            "dropout": dropout,
            **(options or {}),
        }
        self.first = _BRANCHES[branch](embedding_size=self.sizes[0], **given)
        self.second = _BRANCHES[branch](embedding_size=self.sizes[1], **given)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, L, d)`` hidden states for ``(B, L, d)`` item vectors, zero at the pads."""
        first, second = torch.split(embedded, self.sizes, dim=2)
        return torch.cat([self.first(first, lengths), self.second(second, lengths)], dim=2)

    def last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` hidden states of the last items."""
        first, second = torch.split(embedded, self.sizes, dim=2)
        return torch.cat([self.first.last(first, lengths), self.second.last(second, lengths)], dim=1)
