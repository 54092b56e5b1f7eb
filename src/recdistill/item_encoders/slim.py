"""SLIM on the item side: text and id fused, or text alone.

Wang et al., WWW 2024, https://arxiv.org/abs/2403.04260. ID-based (`SlimItems`):

(1)  z_i = g_f([g_l(x_i); e_i])                x_i: vector of the item's text, e_i: the plain item vector
(2)  s_u = g_f'([g_l(x_u); h])                 `recdistill.user_encoders.slim`

ID-agnostic (`SlimText`):

(3)  z_i = g_t(x_i)        s_u = g_t(x_u)

=======  ==============  =========================  ==================================================================
symbol   name in code    shape                      where it comes from
=======  ==============  =========================  ==================================================================
g_l      reader          linear, r to H             the paper; shared by users and items (its formulas leave it open)
g_f      fusion          linear, H + d to d         the paper; of its own for items and users
g_t      text_table      MLP of two layers, r to d  ours; the paper's is said to be a transformer layer, which is
                                                    ``form="transformer"``, see `TextBlock`
=======  ==============  =========================  ==================================================================

g_f starts as [0 | I]: before the first step the ID-based student is the plain student exactly, and the text part is
learned from the first step on. After training z_i is a plain table. g_t is kept with an ID-agnostic student: it
forms the vectors of a catalogue that training never saw.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError, unknown_name
from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.kar import plain_part
from recdistill.item_encoders.text_space import has_vector, into_space

#: What g_t of an ID-agnostic student can be.
FORMS: Final = ("mlp", "transformer")


def fusion(text_size: int, size: int) -> nn.Linear:
    """Return g_f, linear from ``text_size + size`` to `size`, which starts by passing the last `size` on."""
    layer = nn.Linear(text_size + size, size)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, text_size:] = torch.eye(size)
        layer.bias.zero_()
    return layer


class SlimItems(ItemEncoder):
    """Text and id fused, eq. (1).

    Parameters
    ----------
    base
        Forms e_i.
    reader
        g_l, shared with the user side.
    texts
        ``(I, r)`` vectors of the texts in their fixed space; zero where there is none.
    cold
        ``(I,)`` bool, items that training never sees, or None: their e_i is 0.
    """

    formed_by_need = True
    texts: Tensor

    def __init__(self, base: ItemEncoder, reader: nn.Linear, texts: Tensor, *, cold: Any = None) -> None:
        super().__init__(cold, base.cold_length if base.cold_length_given else None)
        if cold is None:
            self.warm = base.warm
        self.item_count, self.size = base.item_count, base.size
        self.base, self.reader = base, reader
        self.fusion = fusion(reader.out_features, base.size)
        self.register_buffer("texts", texts.float(), persistent=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        texts = self.texts if items is None else self.texts[items]
        fused: Tensor = self.fusion(torch.cat([self.reader(texts), plain_part(self, items)], dim=1))
        return fused

    def text_share(self) -> Tensor:
        """Return ``(I, d)``: g_f of each text beside no id, but for what the other encoder makes of text."""
        other = self.base.text_vectors()
        other = self.texts.new_zeros(self.item_count, self.base.size) if other is None else other
        fused: Tensor = self.fusion(torch.cat([self.reader(self.texts), other], dim=1))
        return fused * (self.texts != 0).any(1, keepdim=True)


class TextBlock(nn.Module):
    """One transformer block over the texts about one thing: the steps of a rationale read each other.

    Of the vectors x of these texts, with one head and LN a layer norm::

        y = x + W_O softmax(Q K^T / sqrt(w)) V            Q, K, V of LN(x); only texts that are there are read
        z = LN(y + W_2 gelu(W_1 LN(y)))

    An item has one text, so that its softmax is 1 and V alone counts.

    Parameters
    ----------
    width
        w.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention, self.before_inner, self.last = (nn.LayerNorm(width) for _ in range(3))
        self.projection, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, texts: Tensor, there: Tensor) -> Tensor:
        """Return ``(n, P, w)`` for ``(n, P, w)``; ``(n, P)`` bool says which texts are there."""
        query, key, value = self.projection(self.before_attention(texts)).chunk(3, dim=-1)
        own = torch.eye(texts.shape[1], dtype=torch.bool, device=texts.device)
        mixed = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=there.unsqueeze(1) | own
        )
        texts = texts + self.output(mixed)
        inner = nn.functional.gelu(self.expand(self.before_inner(texts)))
        found: Tensor = self.last(texts + self.contract(inner))
        return found


class TextTable(nn.Module):
    """g_t of eq. (3): any text's vector to a vector of the student's, whoever the text is about.

    Parameters
    ----------
    mean, matrix
        ``(D,)`` and ``(D, r)``: the fixed space of the texts, see `recdistill.item_encoders.text_space`.
    size
        d.
    inner
        Width between; 0: one linear layer.
    std
        Standard deviation of the vectors at the start.
    form
        ``mlp``: two layers; ``transformer``: a `TextBlock` between two linear maps.

    Raises
    ------
    ConfigError
        `form` does not exist, or is ``transformer`` with ``inner=0``.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(
        self,
        mean: Tensor,
        matrix: Tensor,
        size: int,
        *,
        inner: int = 128,
        std: float = 0.01,
        form: str = "mlp",
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise unknown_name("form of g_t", form, FORMS)
        if form == "transformer" and not inner:
            raise ConfigError(
                "form is transformer and inner is 0, which leaves the block no width. Allowed: inner from 1. Set "
                "slim-agnostic.inner=128."
            )
        self.register_buffer("mean", mean.float())
        self.register_buffer("matrix", matrix.float())
        rank = matrix.shape[1]
        self.entry = nn.Linear(rank, inner) if inner else None
        self.exit = nn.Linear(inner or rank, size)
        self.block = TextBlock(inner) if form == "transformer" else None
        with torch.no_grad():
            for layer in (self.entry, self.exit):
                if layer is not None:
                    layer.bias.zero_()
            spread = self.formed(torch.randn(256, rank)).square().mean().sqrt()
            self.exit.weight.mul_(std / spread.clamp_min(1e-12))

    def formed(self, coordinates: Tensor, there: Tensor | None = None) -> Tensor:
        """Return ``(..., d)`` for ``(..., r)`` coordinates in the fixed space.

        With ``(n, P)`` bool `there`, the coordinates are ``(n, P, r)``: P texts about one thing, of which some may be
        missing. Without it each text is alone.
        """
        if self.entry is None:
            inner = coordinates
        elif self.block is None:
            inner = torch.relu(self.entry(coordinates))
        elif there is None:
            alone = self.entry(coordinates).unsqueeze(-2).flatten(0, -3)  # (n, 1, w)
            read = self.block(alone, torch.ones(alone.shape[:2], dtype=torch.bool, device=alone.device))
            inner = read.view(*coordinates.shape[:-1], -1)
        else:
            inner = self.block(self.entry(coordinates), there)
        result: Tensor = self.exit(inner)
        return result

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``(n, d)`` for ``(n, D)`` vectors as the text encoder gave them; zero where there is no text."""
        found = self.formed(into_space(vectors, self.mean, self.matrix))
        return found * has_vector(vectors).unsqueeze(-1)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> TextTable:
        """Return what ``state_dict`` was taken from.

        Raises
        ------
        KeyError
            A tensor is missing.
        """
        inner = len(state["entry.bias"]) if "entry.bias" in state else 0
        form = "transformer" if "block.last.weight" in state else "mlp"
        made = cls(state["mean"], state["matrix"], len(state["exit.bias"]), inner=inner, form=form)
        made.load_state_dict(state)
        return made


class SlimText(ItemEncoder):
    """Item vectors from text alone, eq. (3): no number belongs to an item.

    Parameters
    ----------
    text_table
        g_t, shared with the user side.
    vectors
        ``(I, D)`` as the text encoder gave them; zero where an item has no text.
    cold
        ``(I,)`` bool, items that training never sees, or None: the loss leaves them out, their vectors are formed as
        any others.
    """

    formed_by_need = True
    texts: Tensor
    known: Tensor

    def __init__(self, text_table: TextTable, vectors: Tensor, *, cold: Any = None) -> None:
        super().__init__(cold)
        self.text_table = text_table
        self.item_count, self.size = len(vectors), text_table.exit.out_features
        texts = into_space(vectors, text_table.mean, text_table.matrix)
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("known", has_vector(vectors).unsqueeze(1), persistent=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        if items is None:
            return self.text_table.formed(self.texts) * self.known
        unique, places = torch.unique(items, return_inverse=True)
        formed = self.text_table.formed(self.texts[unique]) * self.known[unique]
        return nn.functional.embedding(places, formed)
