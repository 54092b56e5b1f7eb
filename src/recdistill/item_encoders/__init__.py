"""Item encoders: how the ``(I, d)`` table of item vectors is formed."""

from typing import Final

from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.collaborative import Collaborative
from recdistill.item_encoders.ids import Ids, fold

ITEM_ENCODERS: Final[dict[str, type[ItemEncoder]]] = {"collaborative": Collaborative, "ids": Ids}

__all__ = ["ITEM_ENCODERS", "Collaborative", "Ids", "ItemEncoder", "fold"]
