"""A language model with the catalogue as its output layer (E4SRec)."""

from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.teacher import ItemHeadTeacher

__all__ = ["ItemHeadOptions", "ItemHeadTeacher"]
