"""Two branches: ids and text side by side, after EnsRec, Collins et al., 2025. https://arxiv.org/abs/2512.17820

A student of ids and a student of text err on different rows, and the sum of their scores is better than either.

(1)  e_i = [a_i, t_i]                              a_i: free numbers; t_i: `recdistill.item_encoders.text_only`
(2)  score of i = h . e_i = h_a . a_i + h_t . t_i  h = [h_a, h_t], the student's hidden state

So the sum of two scores is one inner product, and after training [a_i, t_i] is one table. Which networks make h_a
and h_t is the student's affair: with ``--student twin`` each branch has its own, reads its own half and knows
nothing of the other (EnsRec's two students); with any other student one network reads both halves. A single student
of the usual width takes over what both know by learning from their answers: ``recdistill teach student``, then the
strategy ``soft_labels``.

=============  ==================  ==========  ========  ===================================================
symbol         name in code        shape       default   where the default comes from
=============  ==================  ==========  ========  ===================================================
a_i            offsets             (I, d-d_t)  0.01      `recdistill.item_encoders.ids` (``std``)
t_i            branch              (I, d_t)    d / 2     ours: equal shares, as two students have
.              rank, projector,                          as in `recdistill.item_encoders.text_only`
               hidden
=============  ==================  ==========  ========  ===================================================

Where EnsRec differs
1. It trains two students separately and adds their scores afterwards. Here the sum is trained as one.
2. Its scores are cosines. Here inner products, as for every other student.

An item without text has t_i = 0, a ``cold`` item, which training never saw, a_i = 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.checks import above_zero, refuse
from recdistill.item_encoders.offsets import draw_offsets, offsets_of
from recdistill.item_encoders.text_map import TextMap
from recdistill.item_encoders.text_only import TextOnly


class TwoBranch(ItemEncoder):
    """Free numbers and numbers formed from text, side by side, eq. (1).

    Parameters
    ----------
    item_count
        I.
    size
        d, at least 2.
    item_embeddings
        ``(I, D)`` the teacher's vectors, any float format; a zero row means no text.
    text_size
        d_t, from 1 to d - 1; None: half of d. The student ``twin`` has the same option.
    rank, projector, hidden
        As in `TextOnly`.
    std
        Standard deviation at the start, of both branches; above 0.
    cold
        ``(I,)`` bool, items without any training event, or None: there are none.
    cold_length
        Mean length of the cold items' vectors in the folded table, next to that of the others, above 0; None: 1, and
        then what validation picks.

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    KnowledgeError
        There is not one vector an item, or one is not finite.
    """

    requires = frozenset({"item_embeddings"})

    def __init__(
        self,
        item_count: int,
        size: int,
        item_embeddings: Tensor | npt.NDArray[np.floating[Any]],
        *,
        text_size: int | None = None,
        rank: int = 128,
        projector: Literal["mlp", "linear"] = "mlp",
        hidden: int | None = None,
        std: float = 0.01,
        cold: Tensor | npt.NDArray[np.bool_] | None = None,
        cold_length: float | None = None,
    ) -> None:
        super().__init__(cold, cold_length)
        text_size = size // 2 if text_size is None else text_size
        if not 1 <= text_size < size:
            raise refuse(
                "two_branch", "text_size", text_size, f"1 to {size - 1}, below the width of the item vectors"
            )
        above_zero("two_branch", std=std, cold_length=cold_length)
        self.item_count, self.size, self.text_size = item_count, size, text_size
        self.offsets = draw_offsets(item_count, size - text_size, std, self.warm)
        self.branch = TextOnly(
            item_count, text_size, item_embeddings, rank=rank, projector=projector, hidden=hidden, std=std
        )

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        free = offsets_of(self.offsets, self.warm, items)  # (n, d - d_t)
        return torch.cat([free, self.branch(items)], dim=1)

    def text_map(self) -> TextMap:
        """Return the map of the text branch; the numbers before it are 0."""
        return replace(self.branch.text_map(), size=self.size)

    def text_vectors(self) -> Tensor:
        """Return ``(I, d)``: the text branch alone, zeros before it."""
        return pad(self.branch.text_vectors(), (self.size - self.text_size, 0))
