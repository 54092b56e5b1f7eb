"""A plain table of learned item vectors, and how any other encoder becomes one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recdistill.item_encoders.base import ItemEncoder


class Ids(ItemEncoder):
    """One free vector an item.

    Parameters
    ----------
    item_count
        I.
    size
        d.
    std
        Standard deviation of the normal distribution that the table is drawn from; 0.01 as in the code of
        DROS and DLLM2Rec.
    """

    def __init__(self, item_count: int, size: int, std: float = 0.01) -> None:
        super().__init__()
        self.item_count, self.size = item_count, size
        self.weight = nn.Parameter(torch.randn(item_count, size) * std)

    @classmethod
    def from_table(cls, table: Tensor) -> Ids:
        """Return an encoder whose table is the ``(I, d)`` `table`; no random number is drawn."""
        ids = cls.__new__(cls)
        ItemEncoder.__init__(ids)
        ids.item_count, ids.size = table.shape
        ids.weight = nn.Parameter(table.detach())
        return ids

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        return self.weight if items is None else embedding(items, self.weight)


@torch.no_grad()
def fold(encoder: ItemEncoder) -> Ids:
    """Return a plain table of the vectors that `encoder` forms in evaluation mode: it costs nothing extra.

    The table is a copy; training the encoder on leaves it as it is. Cold items get the length of the others, see
    `lengthened`.
    """
    was_training = encoder.training
    encoder.eval()
    table = encoder.table().float().clone()
    share = encoder.text_share()
    encoder.train(was_training)
    if share is not None and encoder.warm is not None:
        return Ids.from_table(centred(table, share.float(), encoder.warm, encoder.cold_length or 1.0))
    return Ids.from_table(lengthened(table, encoder.warm, encoder.cold_length))


def centred(table: Tensor, share: Tensor, warm: Tensor, cold_length: float = 1.0) -> Tensor:
    """Return the table with cold items at the mean of the warm ones, moved as their text differs from others' texts.

    Where text is a small part of a warm vector, most of it is the same for all items. Brought to the length of others,
    cold items would all lie in that one direction, and fill the top of every list or of none.

    Parameters
    ----------
    table
        ``(I, d)``.
    share
        ``(I, d)`` what text alone gives each item; a zero row: it has none, and its vector stays.
    warm
        ``(I, 1)`` bool, the items that are not cold.
    cold_length
        How far from their mean cold vectors lie next to the warm ones, above 0.
    """
    known = (share != 0).any(1, keepdim=True)
    learned, told = warm.flatten(), (warm & known).flatten()
    if not bool(told.any()):
        return table
    middle, moved = table[learned].mean(0), share - share[told].mean(0)
    far, text_far = (
        torch.linalg.vector_norm(part, dim=1).mean() for part in (table[learned] - middle, moved[told])
    )
    factor = cold_length * far / text_far if bool(text_far > 0) else torch.zeros_like(far)
    return torch.where(warm | ~known, table, middle + factor * moved)


def lengthened(table: Tensor, warm: Tensor | None, cold_length: float | None = 1.0) -> Tensor:
    """Return the table with cold items' vectors multiplied by one number, so that they are as long as others.

    A cold item's vector is the text's share of a vector alone: about half as long as those of other items, so that
    no history can bring its score to where the others' are, however well the text fits.

    Parameters
    ----------
    table
        ``(I, d)``.
    warm
        ``(I, 1)`` bool, the items that are not cold, or None: all.
    cold_length
        Mean length of cold vectors over that of warm ones, zero vectors left out; above 0. None: as they are.
    """
    factor = cold_factor(table, warm, cold_length)
    if warm is None or factor is None or cold_length is None:
        return table
    return torch.where(warm, table, table * factor)


def cold_factor(table: Tensor, warm: Tensor | None, cold_length: float | None = 1.0) -> float | None:
    """Return the number that `lengthened` multiplies cold items' vectors by; None where no item is cold, or no
    vector.

    Parameters are those of `lengthened`.
    """
    if warm is None or cold_length is None:
        return None if warm is None else 1.0
    lengths = torch.linalg.vector_norm(table, dim=1, keepdim=True)  # (I, 1)
    means = [lengths[part & (lengths > 0)].mean() for part in (warm, ~warm)]
    if not bool((torch.stack(means) > 0).all()):  # NaN where there is no vector
        return None
    return float(cold_length * means[0] / means[1])
