"""Collaborative embedding distillation of DLLM2Rec, Cui et al., RecSys 2024. https://arxiv.org/abs/2405.00338

The teacher's vector z_i of an item is projected into the student's space and joined with a free offset b_i
that learns from behaviour. No loss draws the two spaces together: it is an injection, learned along.

(12)  z^p_i = g(z_i)
(13)  e_i   = b_i + w z^p_i                  the paper's f(z^p, b); "simple linear combinations suffice"

=============  ==================  ========  ==========  ==================================================
symbol         name in code        shape     default     where the default comes from
=============  ==================  ========  ==========  ==================================================
z_i            teacher             (I, D)    the teacher's, fixed, not saved with the student
g              entry, exit                   linear      the code; the paper says "e.g., MLPs"
w              weight                        0.2         the code (its README: 0.3)
b_i            offsets             (I, d)    N(0, 0.01)  the code
=============  ==================  ========  ==========  ==================================================

Where the authors' code differs
1. It takes z as it is: a text term 18 times as large as b at the start, and a few huge dimensions.
   ``standardise=True`` brings every dimension to mean 0 and variance 1, and the vectors to length 1 on
   average; g is then scaled so that w g(z) starts as large as b. ``standardise=False`` is theirs.
2. Its g is a Linear(4096, 64) with fixed sizes; here D and d are free, and ``projector="mlp"`` exists.
3. It gathers a (B, L, 4096) array. Here each distinct item is gathered and projected once, a few at a time.
4. It runs g at inference too. Here `recdistill.item_encoders.fold` turns the table into a plain one.
5. It adds e to the input only. Which side takes it is up to who makes the model (``inject``).

An item without text (a zero vector) gets b_i alone: the bias of g is not added to it. With ``offset=False``
(Table 8, "w/o offset") there is no b_i, and an item without text has the zero vector. An item that training
never saw (``cold``) has b_i = 0: its text alone says where it belongs. Folding makes its vector as long as others.

With ``offset_dropout`` p above 0 each item's b_i is left out with probability p whenever vectors are formed in
training, so that g(z_i) alone learns to say what a cold item's has to (Volkovs et al., DropoutNet, NeurIPS 2017);
its length is then learned as well, and folding leaves it as it is.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.checks import above_zero, checked_vectors, one_of, refuse
from recdistill.item_encoders.offsets import draw_offsets, offsets_of
from recdistill.item_encoders.projection import project_rows
from recdistill.item_encoders.text_map import TextMap
from recdistill.item_encoders.vectors import (
    Step,
    has_text,
    principal_components,
    standardised,
    unit_mean_norm,
)

_DTYPES: Final[dict[str, torch.dtype]] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Collaborative(ItemEncoder):
    """Offset plus projected teacher vector, eq. (13).

    Parameters
    ----------
    item_count
        I.
    size
        d.
    item_embeddings
        ``(I, D)`` the teacher's vectors, any float format; a zero row means no text.
    weight
        w > 0.
    offset
        Whether there is b_i.
    projector
        ``"linear"`` or ``"mlp"`` (one hidden layer).
    hidden
        Width of the MLP's hidden layer, or None: 2 d.
    standardise
        See difference 1.
    rank
        Project this many principal components instead of all D dimensions, or None.
    dtype
        Format in which z is kept, ``"float32"`` or ``"bfloat16"``: half the memory, twice as fast.
    std
        Standard deviation at the start, of b and (standardised) of w g(z).
    cold
        ``(I,)`` bool, items without any training event, whose b_i is and stays 0; None: there are none.
    cold_length
        Mean length of the cold items' vectors in the folded table, next to that of the others, above 0; None: 1, or
        as learned with `offset_dropout`, and then what validation picks.
    offset_dropout
        p, 0 to below 1; needs b_i.

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
        weight: float = 0.2,
        offset: bool = True,
        projector: Literal["linear", "mlp"] = "linear",
        hidden: int | None = None,
        standardise: bool = True,
        rank: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        std: float = 0.01,
        cold: Tensor | npt.NDArray[np.bool_] | None = None,
        cold_length: float | None = None,
        offset_dropout: float = 0.0,
    ) -> None:
        super().__init__(cold, cold_length)
        if offset_dropout and cold_length is None:
            self.cold_length = None  # as learned
        one_of("collaborative", "projector", projector, ("linear", "mlp"))
        one_of("collaborative", "dtype", dtype, tuple(_DTYPES))
        above_zero("collaborative", weight=weight, hidden=hidden, rank=rank, cold_length=cold_length)
        if not 0 <= offset_dropout < (1 if offset else 1e-9):
            allowed = "0 to below 1" if offset else "0 without an offset"
            raise refuse("collaborative", "offset_dropout", offset_dropout, allowed)
        self.offset_dropout = offset_dropout
        item_embeddings = checked_vectors(item_embeddings, item_count)
        self.item_count, self.weight = item_count, weight
        self.offset, self.projector, self.hidden = offset, projector, hidden
        self.standardise, self.std = standardise, std
        text = has_text(item_embeddings)
        self.register_buffer("text", text, persistent=False)
        self.all_text = bool(text.all())
        self.steps: list[Step] = []
        vectors = _prepared(item_embeddings, self.steps, standardise=standardise, rank=rank).to(
            _DTYPES[dtype]
        )
        self.register_buffer("teacher", vectors, persistent=False)
        self._draw(size)

    def resized(self, size: int) -> Collaborative:
        """Return an encoder of this make with parameters of its own and another width d; z is shared."""
        other = type(self).__new__(type(self))
        ItemEncoder.__init__(other)
        for option in (
            "item_count",
            "weight",
            "offset",
            "projector",
            "hidden",
            "standardise",
            "std",
            "cold_length",
            "cold_length_given",
            "offset_dropout",
            "steps",
        ):
            setattr(other, option, getattr(self, option))
        other.all_text = self.all_text
        for name in ("warm", "text", "teacher"):
            other.register_buffer(name, getattr(self, name), persistent=False)
        other._draw(size)
        return other

    def _draw(self, size: int) -> None:
        """Make b and g for the width `size`."""
        self.size = size
        self.offsets = draw_offsets(self.item_count, size, self.std, self.warm) if self.offset else None
        width = size if self.projector == "linear" else self.hidden or 2 * size
        self.entry = nn.Linear(self.teacher.shape[1], width)
        self.exit = None if self.projector == "linear" else nn.Linear(width, size)
        if self.standardise:
            self._scale_start(self.std)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        if items is None:
            return self._vectors(None)
        unique, places = torch.unique(items, return_inverse=True)
        return embedding(places, self._vectors(unique))

    def _vectors(self, items: Tensor | None) -> Tensor:
        """Return eq. (13) of the distinct ``(u,)`` items, or of all."""
        text = self._text(items)
        if self.offsets is None:
            return self.weight * text
        offsets = offsets_of(self.offsets, self.warm, items)
        if self.training and self.offset_dropout:
            offsets = offsets * (torch.rand(len(offsets), 1, device=offsets.device) >= self.offset_dropout)
        return torch.add(offsets, text, alpha=self.weight)

    def _text(self, items: Tensor | None) -> Tensor:
        """Return g(z) of the distinct ``(u,)`` items, or of all; 0 without text."""
        text = project_rows(self.teacher, self.entry.weight, items) + self.entry.bias  # (u, d) or (u, hidden)
        if self.exit is not None:
            text = self.exit(torch.relu(text))
        if not self.all_text:
            text = text * (self.text if items is None else self.text[items]).unsqueeze(1)
        return text

    def text_map(self) -> TextMap:
        """Return w g(z), with what was done to z before."""
        return TextMap.of_layers(self.entry, self.exit, self.steps, self.weight, self.size)

    def text_vectors(self) -> Tensor:
        """Return ``(I, d)``: w g(z) of all items."""
        return self.weight * self._text(None)

    @torch.no_grad()
    def _scale_start(self, std: float) -> None:
        """Draw g so that w g(z) starts with standard deviation `std`."""
        layers = [self.entry] if self.exit is None else [self.entry, self.exit]
        for layer in layers:
            nn.init.zeros_(layer.bias)
        sample = self.text.nonzero().flatten()[:1000]
        if len(sample):
            spread = self.weight * self._text(sample).square().mean().sqrt()
            layers[-1].weight.mul_(std / spread.clamp_min(1e-12))


def _prepared(vectors: Tensor, steps: list[Step], *, standardise: bool, rank: int | None) -> Tensor:
    result = standardised(vectors, steps) if standardise else vectors.float()
    if rank is not None:
        result = principal_components(result, rank, whiten=False, steps=steps)
    return unit_mean_norm(result, steps) if standardise else result
