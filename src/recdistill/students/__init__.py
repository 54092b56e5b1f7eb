"""Students: history to hidden state, hidden state times item table to scores."""

from recdistill.students.base import SequenceModel, Student
from recdistill.students.caser import Caser
from recdistill.students.gru4rec import GRU4Rec
from recdistill.students.layers import Activation, Variant
from recdistill.students.sasrec import SASRec
from recdistill.students.twin import Twin

STUDENTS: dict[str, type[Student]] = {"caser": Caser, "gru4rec": GRU4Rec, "sasrec": SASRec, "twin": Twin}

__all__ = [
    "STUDENTS",
    "Activation",
    "Caser",
    "GRU4Rec",
    "SASRec",
    "SequenceModel",
    "Student",
    "Twin",
    "Variant",
]
