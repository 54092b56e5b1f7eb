"""What an item encoder is."""

from __future__ import annotations

from torch import Tensor, nn


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
    """

    item_count: int
    size: int
    requires: frozenset[str] = frozenset()

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        raise NotImplementedError

    def table(self) -> Tensor:
        """Return the whole ``(I, d)`` table, the same as ``forward(None)``."""
        return self(None)  # type: ignore[no-any-return]
