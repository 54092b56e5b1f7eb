"""What lies beyond accuracy: do the lists reach the whole catalogue, or repeat what everybody knows?

All functions read ``(n, k)`` lists of items as `top_items` returns them; `PAD` entries count as nothing.

* coverage: share of the catalogue that is in at least one list (Herlocker et al., TOIS 2004);
* novelty: mean self-information ``-log2 p`` of the listed items (Zhou et al., PNAS 2010), where ``p`` is the
  item's share of the training interactions, one added to each so that a cold item has a value;
* popularity: mean number of training interactions of the listed items;
* Gini: inequality of how often the items are listed, 0 when all equally, near 1 when a few fill all lists.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recdistill.errors import DataError
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def beyond_accuracy(top: Ints, popularity: Ints) -> dict[str, float]:
    """Return ``{"coverage@k": ..., "novelty@k": ..., "popularity@k": ..., "gini@k": ...}``.

    Parameters
    ----------
    top
        ``(n, k)`` items, `PAD` where a list is shorter.
    popularity
        ``(I,)`` how often each item is a training target (``dataset.popularity``).

    Raises
    ------
    DataError
        The lists hold no item, or one that does not exist.
    """
    exposure = list_exposure(top, len(popularity))
    values = {
        "coverage": coverage(exposure),
        "novelty": novelty(exposure, popularity),
        "popularity": float(exposure @ popularity / exposure.sum()),
        "gini": gini(exposure),
    }
    return {f"{name}@{top.shape[1]}": value for name, value in values.items()}


def list_exposure(top: Ints, item_count: int) -> Ints:
    """Return ``(I,)`` how often each item is listed.

    Raises
    ------
    DataError
        The lists hold no item, or one that does not exist.
    """
    items = top[top != PAD]
    if not len(items) or int(items.min()) < 0 or int(items.max()) >= item_count:
        found = f"items {items.min()}..{items.max()}" if len(items) else "no item"
        raise DataError(
            f"the lists hold {found}; at least one item of 0..{item_count - 1} is needed. "
            "Make them with top_items."
        )
    return np.bincount(items, minlength=item_count)


def coverage(exposure: Ints) -> float:
    """Return the share of items that are listed at least once."""
    return float((exposure > 0).mean())


def novelty(exposure: Ints, popularity: Ints) -> float:
    """Return the mean self-information of the listed items, in bits."""
    share: Floats = (popularity + 1.0) / (popularity.sum() + len(popularity))
    return float(exposure @ -np.log2(share) / exposure.sum())


def gini(exposure: Ints) -> float:
    """Return the Gini coefficient of an ``(I,)`` exposure, items that are never listed included."""
    ascending = np.sort(exposure).astype(np.float64)
    count = len(ascending)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ ascending / (count * ascending.sum()))
