"""Text alone: whitened text through a small network, WhitenRec, Zhang et al., ICDE 2024.
https://arxiv.org/abs/2402.10602

Nothing in the table belongs to one item. An item that nobody has bought is formed like any other, and the
vectors of a language model, whose cosines hardly differ as they are, are spread out first. With U S U^T the
covariance matrix of the teacher's vectors z_i:

(1)  s_i = S^-1/2 U^T (z_i - mean z)               the `rank` directions of largest variance
(2)  e_i = W_2 relu(W_1 s_i + b_1) + b_2           or W s_i + b with ``projector="linear"``

=============  ==================  ==========  ========  ===================================================
symbol         name in code        shape       default   where the default comes from
=============  ==================  ==========  ========  ===================================================
s_i            teacher             (I, rank)   128       EnsRec and LLM2Rec keep about as many
inner width    hidden                          2 d       as in `recdistill.item_encoders.collaborative`
W, b           entry, exit                     mlp       the paper's projection head
=============  ==================  ==========  ========  ===================================================

The paper whitens by ZCA, which turns s_i back by U: a rotation that W_1 takes in. An item without text has the
zero vector.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.checks import above_zero, checked_vectors, one_of
from recdistill.item_encoders.projection import project_rows
from recdistill.item_encoders.text_map import TextMap
from recdistill.item_encoders.vectors import Step, has_text, principal_components, unit_mean_norm


class TextOnly(ItemEncoder):
    """Item vectors formed from text alone, eq. (2).

    Parameters
    ----------
    item_count
        I.
    size
        d.
    item_embeddings
        ``(I, D)`` the teacher's vectors, any float format; a zero row means no text.
    rank
        Whitened directions to keep, at least 1; cut to min(I, D).
    projector
        ``"mlp"`` or ``"linear"``.
    hidden
        Width of the MLP's inner layer, or None: 2 d.
    std
        Standard deviation of the vectors at the start, above 0.
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
    teacher: Tensor
    text: Tensor

    def __init__(
        self,
        item_count: int,
        size: int,
        item_embeddings: Tensor | npt.NDArray[np.floating[Any]],
        *,
        rank: int = 128,
        projector: Literal["mlp", "linear"] = "mlp",
        hidden: int | None = None,
        std: float = 0.01,
        cold: Tensor | npt.NDArray[np.bool_] | None = None,
        cold_length: float | None = None,
    ) -> None:
        super().__init__(cold, cold_length)
        one_of("text_only", "projector", projector, ("mlp", "linear"))
        above_zero("text_only", rank=rank, hidden=hidden, std=std, cold_length=cold_length)
        vectors = checked_vectors(item_embeddings, item_count)
        self.item_count, self.projector, self.hidden, self.std = item_count, projector, hidden, std
        self.register_buffer("text", has_text(vectors), persistent=False)
        self.steps: list[Step] = []
        components = principal_components(vectors, rank, whiten=True, steps=self.steps)
        whitened = unit_mean_norm(components, self.steps)
        self.register_buffer("teacher", whitened, persistent=False)
        self._draw(size)

    def resized(self, size: int) -> TextOnly:
        """Return an encoder of this make with parameters of its own and another width d; s is shared."""
        other = type(self).__new__(type(self))
        ItemEncoder.__init__(other)
        for option in (
            "item_count",
            "projector",
            "hidden",
            "std",
            "cold_length",
            "cold_length_given",
            "steps",
        ):
            setattr(other, option, getattr(self, option))
        for name in ("warm", "text", "teacher"):
            other.register_buffer(name, getattr(self, name), persistent=False)
        other._draw(size)
        return other

    @torch.no_grad()
    def _draw(self, size: int) -> None:
        """Make the network for the width `size`, scaled so that the vectors start with spread `std`."""
        self.size = size
        width = size if self.projector == "linear" else self.hidden or 2 * size
        self.entry = nn.Linear(self.teacher.shape[1], width)
        self.exit = None if self.projector == "linear" else nn.Linear(width, size)
        last = self.entry if self.exit is None else self.exit
        for layer in (self.entry, last):
            nn.init.zeros_(layer.bias)
        sample = self.text.nonzero().flatten()[:1000]
        if len(sample):
            last.weight.mul_(self.std / self._vectors(sample).square().mean().sqrt().clamp_min(1e-12))

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        if items is None:
            return self._vectors(None)
        unique, places = torch.unique(items, return_inverse=True)
        return embedding(places, self._vectors(unique))

    def text_map(self) -> TextMap:
        """Return eq. (2), with the whitening of eq. (1)."""
        return TextMap.of_layers(self.entry, self.exit, self.steps, 1.0, self.size)

    def text_vectors(self) -> Tensor:
        """Return ``(I, d)``: the whole table."""
        return self._vectors(None)

    def _vectors(self, items: Tensor | None) -> Tensor:
        """Return eq. (2) of the distinct ``(u,)`` items, or of all."""
        vectors = project_rows(self.teacher, self.entry.weight, items) + self.entry.bias
        if self.exit is not None:
            vectors = self.exit(torch.relu(vectors))
        text = self.text if items is None else self.text[items]
        return vectors * text.unsqueeze(1)
