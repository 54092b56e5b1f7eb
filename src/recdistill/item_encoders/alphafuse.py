"""AlphaFuse: learn ids in the null space of language, Hu et al., SIGIR 2025. https://arxiv.org/abs/2504.19218

The directions in which the texts of items vary most are kept as they are; an id is learned only in those in which
they hardly vary. Nothing is projected and nothing stands beside the table: after training it is one matrix. With
the covariance matrix of the teacher's vectors z_i written as U S U^T, largest directions first:

(1)  s_i = S^-1/2 U^T (z_i - mean z)               the first d numbers: whitened, fixed
(2)  e_i = c s_i + [0, b_i]                        b_i: d_n learned numbers, added to the last d_n of d

=============  ==================  ==========  ========  ===================================================
symbol         name in code        shape       default   where the default comes from
=============  ==================  ==========  ========  ===================================================
s_i            semantic            (I, d)      fixed, not saved with the student
d_n            null_size                       d / 2     the authors' code: 64 of 128
b_i            offsets             (I, d_n)    0         the authors' code (``std``)
c              scale                           0.1       ours, see difference 2
=============  ==================  ==========  ========  ===================================================

Where the authors' code differs
1. ``cover=False`` adds b_i to the last d_n whitened numbers, ``cover=True`` puts b_i in their place: theirs are
   both, one for each dataset.
2. They score by cosine, so that the size of e_i does not matter, and multiply z by 40. Here a score is an inner
   product, and c says how large the fixed part is next to what is learned. ``learn_scale=True`` learns it.
3. 1 / sqrt(S) is infinite where S is 0. A direction without variance is 0 here, and one that z does not have
   at all (D < d) belongs to b_i as well if it is among the last d_n.
4. They give items that are often bought more weight in mean and covariance if told to. Not here.

An item without text has zeros in place of s_i. A ``cold`` item, which training never saw, has b_i = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, pad

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.checks import above_zero, checked_vectors, refuse
from recdistill.item_encoders.offsets import draw_offsets, offsets_of
from recdistill.item_encoders.vectors import principal_components


class AlphaFuse(ItemEncoder):
    """Whitened text with ids in its directions of least variance, eq. (2).

    Parameters
    ----------
    item_count
        I.
    size
        d.
    item_embeddings
        ``(I, D)`` the teacher's vectors, any float format; a zero row means no text.
    null_size
        d_n, from 1 to d; None: half of d.
    cover
        Whether b_i takes the place of the last d_n numbers of s_i instead of being added to them.
    scale
        c > 0.
    learn_scale
        Whether c is learned, starting from `scale`.
    std
        Standard deviation of b at the start; 0 or more.
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
    semantic: Tensor

    def __init__(
        self,
        item_count: int,
        size: int,
        item_embeddings: Tensor | npt.NDArray[np.floating[Any]],
        *,
        null_size: int | None = None,
        cover: bool = False,
        scale: float = 0.1,
        learn_scale: bool = False,
        std: float = 0.0,
        cold: Tensor | npt.NDArray[np.bool_] | None = None,
        cold_length: float | None = None,
    ) -> None:
        super().__init__(cold, cold_length)
        null_size = max(1, size // 2) if null_size is None else null_size
        if not 1 <= null_size <= size:
            raise refuse("alphafuse", "null_size", null_size, f"1 to {size}, the width of the item vectors")
        above_zero("alphafuse", scale=scale, cold_length=cold_length)
        if not std >= 0:
            raise refuse("alphafuse", "std", std, "0 or more")
        self.item_count, self.size, self.null_size = item_count, size, null_size
        vectors = checked_vectors(item_embeddings, item_count)
        kept = size - null_size if cover else size
        semantic = vectors.new_zeros((item_count, 0), dtype=torch.float32)
        if kept:
            semantic = principal_components(vectors, kept, whiten=True)
        semantic = pad(semantic, (0, size - semantic.shape[1]))
        self.register_buffer("semantic", semantic if learn_scale else scale * semantic, persistent=False)
        self.scale = nn.Parameter(torch.tensor(scale)) if learn_scale else None
        self.offsets = draw_offsets(item_count, null_size, std, self.warm)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        text = self.semantic if items is None else embedding(items, self.semantic)
        if self.scale is not None:
            text = self.scale * text
        learned = offsets_of(self.offsets, self.warm, items)  # (n, d_n)
        return text + pad(learned, (self.size - self.null_size, 0))
