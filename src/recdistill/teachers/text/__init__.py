"""Item text as vectors: titles, encoders, whitening."""

from recdistill.teachers.text.item_text import ItemText, encode_further, encode_text, whiten, whitening_of
from recdistill.teachers.text.tower import TextTower
from recdistill.teachers.text.tower_loading import load_text_tower

__all__ = [
    "ItemText",
    "TextTower",
    "encode_further",
    "encode_text",
    "load_text_tower",
    "whiten",
    "whitening_of",
]
