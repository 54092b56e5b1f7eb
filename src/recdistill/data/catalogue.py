"""The items: raw id, index, title, further text columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl


class Catalogue:
    """Raw ids, titles and text columns of the I items; row k of the frame is item index k.

    Parameters
    ----------
    frame
        Columns ``item_id`` (string, unique) and ``title`` (string, empty where unknown), plus any others.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def raw_ids(self) -> list[str]:
        """The ``I`` raw ids in index order."""
        return self.frame["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """The ``I`` titles in index order; empty where the source has none."""
        return self.frame["title"].to_list()

    def index_of(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the indices of raw ids or titles (helper H1 completes this)."""
        raise NotImplementedError
