"""What passes between the parts: ids, one batch, what a student answers, what a strategy may ask.

Items are numbered ``0 .. I-1``. `PAD` is the one sign for "nothing here": a history position without an
item, a list that is shorter than K, a row id that does not exist. Histories run from old to new and are
padded on the right, so that a causal student never sees a pad before an item.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from torch import Tensor

PAD: Final = -1

Split = Literal["train", "valid", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "valid", "test")
#: The splits that a student is judged on.
HELD_OUT: Final[tuple[Split, ...]] = ("valid", "test")
#: Where a student's spec and a teacher's manifest name the splits that were learned from besides the training rows.
LEARNED: Final = "learned"


@dataclass(frozen=True)
class KnowledgeRows:
    """What the teacher says about the S supervised rows of one batch. Absent fields are None.

    Attributes
    ----------
    ranking
        ``(S, K)`` int64, the teacher's items, best first, `PAD` where the list is shorter.
    ranking_distance
        ``(S, K)`` float32, distance of each listed item (smaller is better).
    target_distance
        ``(S,)`` float32, distance of the row's true item (eq. 7); NaN where unknown.
    query_embeddings
        ``(S, D)`` float32, the teacher's vector of the row.
    covered
        ``(S,)`` bool, whether the teacher was asked about the row at all.
    """

    covered: Tensor
    ranking: Tensor | None = None
    ranking_distance: Tensor | None = None
    target_distance: Tensor | None = None
    query_embeddings: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """B histories and their S supervised positions.

    A window has one supervised position, its last; a user's whole sequence supervises all of its rows in
    one pass. The supervised positions are kept as a flat list, because a loss or a strategy reads nothing else.

    Attributes
    ----------
    history
        ``(B, L)`` int64, item indices, oldest first, `PAD` on the right.
    lengths
        ``(B,)`` int64, number of items in each history.
    positions
        ``(S,)`` int64, indices into the flattened ``(B * L)`` grid, or None: the last item of each history.
    targets
        ``(S,)`` int64, the item that follows.
    row_ids
        ``(S,)`` int64, the dataset's row ids.
    negatives
        ``(S, n)`` int64, sampled items that are not the target, or None where the loss needs none.
    knowledge
        The teacher's rows, or None where no strategy asks for them.
    """

    history: Tensor
    lengths: Tensor
    positions: Tensor | None
    targets: Tensor
    row_ids: Tensor
    negatives: Tensor | None = None
    knowledge: KnowledgeRows | None = None


@dataclass(frozen=True, eq=False)
class StudentOutput:
    """What a student answers for S supervised positions. Derived tensors are computed once, on first use.

    Attributes
    ----------
    hidden
        ``(S, H)`` hidden states.
    table
        ``(I, H)`` output vectors of all items; or, where forming a few costs less than forming all, what forms them:
        called with ``(n,)`` items it returns ``(n, H)``, with None ``(I, H)``.
    item_bias
        ``(I,)`` or None.
    embed_items
        Maps ``(n,)`` item indices to the ``(n, d)`` vectors that the student reads as input.
    cold
        ``(I,)`` bool, items that training never saw and whose vectors come from their text: a loss over many items
        leaves them out, for it could teach only that they are never the answer; so does a strategy, unless its teacher
        scores them. None: there are none.
    """

    hidden: Tensor
    table: Tensor | Callable[[Tensor | None], Tensor]
    item_bias: Tensor | None
    embed_items: Callable[[Tensor], Tensor]
    cold: Tensor | None = None
    _memo: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def item_table(self) -> Tensor:
        """``(I, H)`` output vectors of all items. Ask for `scores` or `vectors` where a few are enough."""
        return self.table(None) if callable(self.table) else self.table

    def vectors(self, items: Tensor) -> Tensor:
        """Return the ``(..., H)`` output vectors of the ``(...)`` items."""
        if not callable(self.table) or "item_table" in vars(self):
            return self.item_table[items]
        return self.table(items.flatten()).view(*items.shape, -1)

    @property
    def warm_bias(self) -> Tensor | None:
        """``(I,)`` bias, minus infinity at the cold items, whose share of a softmax is then exactly 0; or None."""
        if self.cold is None:
            return self.item_bias
        bias = self.item_table.new_zeros(len(self.cold)) if self.item_bias is None else self.item_bias
        return bias.masked_fill(self.cold, -math.inf)

    def is_cold(self, items: Tensor) -> Tensor:
        """Return ``(...)`` bool: which of the ``(...)`` items are cold; `PAD` never is."""
        if self.cold is None:
            return items.new_zeros(items.shape).bool()
        return self.cold[items.clamp_min(0)] & (items != PAD)

    @cached_property
    def logits(self) -> Tensor:
        """``(S, I)`` scores of all items. Ask for `scores` where a few items per row are enough."""
        product = self.hidden @ self.item_table.T  # (S, I)
        return product if self.item_bias is None else product.add_(self.item_bias.to(product.dtype))

    def scores(self, items: Tensor) -> Tensor:
        """Return the ``(S, n)`` scores of the ``(S, n)`` items; a `PAD` item gets the score of item 0.

        They are computed from the items' vectors even where `logits` exist: a backward pass through a gather
        would fill a whole ``(S, I)`` gradient. They equal `logits` to rounding, so ranks are counted on `logits`.
        """
        import torch

        from recdistill.products import listed_products

        index = items.clamp_min(0)
        if not callable(self.table) or "item_table" in vars(self):
            product = listed_products(self.hidden, self.item_table, index)
        else:
            asked, places = torch.unique(index, return_inverse=True)
            product = listed_products(self.hidden, self.table(asked), places)
        if self.item_bias is None:
            return product
        return product + self.item_bias.index_select(0, index.flatten()).view(index.shape)

    def shared(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the tensor that another part already computed under `key`, or compute it now."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]


@dataclass(frozen=True)
class Task:
    """What a loss or a strategy may know before the first batch.

    Attributes
    ----------
    item_count
        I, the number of items.
    embedding_size
        d, the width of the student's item vectors.
    hidden_size
        H, the width of its hidden states.
    popularity
        ``(I,)`` float32, how often each item is a training target.
    item_embeddings
        ``(I, D)`` float32, the teacher's item vectors, or None.
    scales
        Medians over the training rows: ``target_distance``, ``ranking_distance``; empty without knowledge.
    """

    item_count: int
    embedding_size: int
    hidden_size: int
    popularity: Tensor
    item_embeddings: Tensor | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
