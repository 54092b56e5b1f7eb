"""Item encoders: how the ``(I, d)`` table of item vectors is formed."""

from typing import Final

from recdistill.item_encoders.alphafuse import AlphaFuse
from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.collaborative import Collaborative
from recdistill.item_encoders.experts import HybridExperts
from recdistill.item_encoders.ids import Ids, centred, fold, lengthened
from recdistill.item_encoders.kar import KarItems
from recdistill.item_encoders.slim import SlimItems, SlimText, TextTable
from recdistill.item_encoders.text_map import TextMap, text_map
from recdistill.item_encoders.text_only import TextOnly
from recdistill.item_encoders.two_branch import TwoBranch

#: Those that a config's section ``item_encoder`` may name; those of knowledge in words are set around them.
ITEM_ENCODERS: Final[dict[str, type[ItemEncoder]]] = {
    "alphafuse": AlphaFuse,
    "collaborative": Collaborative,
    "ids": Ids,
    "text_only": TextOnly,
    "two_branch": TwoBranch,
}

__all__ = [
    "ITEM_ENCODERS",
    "AlphaFuse",
    "Collaborative",
    "HybridExperts",
    "Ids",
    "ItemEncoder",
    "KarItems",
    "SlimItems",
    "SlimText",
    "TextMap",
    "TextOnly",
    "TextTable",
    "TwoBranch",
    "centred",
    "fold",
    "lengthened",
    "text_map",
]
