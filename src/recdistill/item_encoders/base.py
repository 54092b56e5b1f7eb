"""What an item encoder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from recdistill.item_encoders.offsets import warm_items

if TYPE_CHECKING:
    from recdistill.item_encoders.text_map import TextMap


class ItemEncoder(nn.Module):
    """Forms item vectors.

    Attributes
    ----------
    item_count
        I, the number of items.
    size
        d, the width of its vectors.
    requires
        Fields of the knowledge that its constructor takes: ``item_embeddings`` or nothing.
    warm
        ``(I, 1)`` bool, items with a vector that is learned from behaviour; None: all are alike.
    cold_length
        How long the other items' vectors become when the table is folded, next to the mean of the warm ones; None:
        they stay as they are.
    formed_by_need
        Whether vectors of a few items cost much less than the whole table: then a loss that reads few forms few.
    cold_length_given
        Whether somebody chose it; else `recdistill.train.distill` picks on validation what is multiplied to it.
    """

    item_count: int
    size: int
    requires: frozenset[str] = frozenset()
    formed_by_need: bool = False
    warm: Tensor | None
    cold_length: float | None
    cold_length_given: bool

    def __init__(self, cold: Any = None, cold_length: float | None = None) -> None:
        """Take ``(I,)`` bool, the items without any training event, or None: there are none."""
        super().__init__()
        self.cold_length = 1.0 if cold_length is None else cold_length
        self.cold_length_given = cold_length is not None
        self.register_buffer("warm", warm_items(cold), persistent=False)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """Return the whole ``(I, d)`` table, the same as ``forward(None)``."""
        return self(None)  # type: ignore[no-any-return]

    def resized(self, size: int) -> ItemEncoder | None:
        """Return an encoder of this make with parameters of its own and another width, which shares fixed tables.

        None, the default, where there is no large fixed table to share: make it anew instead.
        """
        return None

    def text_map(self) -> TextMap | None:
        """Return how a teacher's vector becomes the text part of an item vector; None: there is no such part.

        See `recdistill.item_encoders.text_map`, which also brings new items' vectors to the length of others.
        """
        return None

    def text_vectors(self) -> Tensor | None:
        """Return ``(I, d)`` vectors formed from text alone, as `text_map` would form them; None: there are none."""
        return None

    def text_share(self) -> Tensor | None:
        """Return ``(I, d)`` what text adds to each vector where it is a small part of it; None: it is no such part.

        Cold items are then placed by `recdistill.item_encoders.centred`, else by `recdistill.item_encoders.lengthened`.
        """
        return None
