"""KAR on the item side: e_i' = e_i + σ(θ) W v_i, v_i from what a language model wrote about the item.

Xi et al., RecSys 2024, https://arxiv.org/abs/2306.10933; the adaptor is `recdistill.item_encoders.experts`, the user
side `recdistill.user_encoders.kar`. The authors append v to a click model's features; how it is joined to a sequential
student is ours:

(1)  e_i' = e_i + σ(θ) W v_i        in the input, and in the output table

θ starts at -3, so that σ(θ) = 0.05, and W at 0: before the first step the student is the plain student exactly. The
gradient reaches W at once and the experts once W has moved.

After training e_i' is a plain table: neither texts, nor their vectors, nor the adaptor are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.experts import HybridExperts


class KarItems(ItemEncoder):
    """Another encoder's item vectors with what is known from words added, eq. (1).

    Parameters
    ----------
    base
        Forms e_i.
    experts
        The adaptor, shared with the user side.
    texts
        ``(I, r)`` vectors of the texts in their fixed space; zero where there is none.
    gate
        θ at the start.
    cold
        ``(I,)`` bool, items that training never sees, or None: their e_i is 0, see `recdistill.item_encoders.offsets`.
    """

    formed_by_need = True
    texts: Tensor
    known: Tensor

    def __init__(
        self,
        base: ItemEncoder,
        experts: HybridExperts,
        texts: Tensor,
        *,
        gate: float = -3.0,
        cold: Any = None,
    ) -> None:
        super().__init__(cold, base.cold_length if base.cold_length_given else None)
        if cold is None:
            self.warm = base.warm
        self.item_count, self.size = base.item_count, base.size
        self.base, self.experts = base, experts
        self.map = nn.Linear(experts.size, base.size, bias=False)
        nn.init.zeros_(self.map.weight)
        self.gate = nn.Parameter(torch.tensor(float(gate)))
        self.register_buffer("texts", texts.float(), persistent=False)
        self.register_buffer("known", (texts != 0).any(1, keepdim=True), persistent=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        return plain_part(self, items) + self._added(items)

    def text_share(self) -> Tensor:
        """Return ``(I, d)``, σ(θ) W v of all items, and what the other encoder's text gives them."""
        other = self.base.text_vectors()
        return self._added(None) if other is None else self._added(None) + other

    def _added(self, items: Tensor | None) -> Tensor:
        if items is None:
            return self._formed(self.texts, self.known)
        unique, places = torch.unique(items, return_inverse=True)
        return nn.functional.embedding(places, self._formed(self.texts[unique], self.known[unique]))

    def _formed(self, texts: Tensor, known: Tensor) -> Tensor:
        added: Tensor = torch.sigmoid(self.gate) * self.map(self.experts(texts, "item")) * known
        return added


def plain_part(encoder: Any, items: Tensor | None) -> Tensor:
    """Return ``(n, d)`` what ``encoder.base`` forms, 0 for items that training never sees."""
    found: Tensor = encoder.base(items)
    if encoder.warm is None or encoder.base.warm is not None:
        return found
    warm: Tensor = encoder.warm if items is None else encoder.warm[items]
    return found * warm
