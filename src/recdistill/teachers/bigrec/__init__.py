"""BIGRec: a language model writes the next title, and the catalogue answers what it meant."""

from recdistill.teachers.bigrec.teacher import Speaker, ground_answers, speakers

__all__ = ["Speaker", "ground_answers", "speakers"]
