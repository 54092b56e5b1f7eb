"""Knowledge in words: what a language model writes about users and items, and the vectors of it."""

from typing import Final

from recdistill.teachers.rationales.asking import Maker, Reply, Work, planned_cost
from recdistill.teachers.rationales.encoding import WordEncoder, load_encoder, make_encoder
from recdistill.teachers.rationales.kar import Kar
from recdistill.teachers.rationales.llm_cf import LlmCf
from recdistill.teachers.rationales.making import make_words, maker
from recdistill.teachers.rationales.moments import Moments, moments, readable
from recdistill.teachers.rationales.slim import Slim, item_texts
from recdistill.teachers.rationales.steps import Rationale, parse_rationale

#: Who can write: ``recdistill rationales NAME``. Another system is one more line.
MAKERS: Final[dict[str, type[Maker]]] = {"kar": Kar, "llm-cf": LlmCf, "slim": Slim}

__all__ = [
    "MAKERS",
    "Kar",
    "LlmCf",
    "Maker",
    "Moments",
    "Rationale",
    "Reply",
    "Slim",
    "WordEncoder",
    "Work",
    "item_texts",
    "load_encoder",
    "make_encoder",
    "make_words",
    "maker",
    "moments",
    "parse_rationale",
    "planned_cost",
    "readable",
]
