"""Who is asked: each teacher turns a dataset into knowledge and never sees a student."""

from recdistill.teachers.base import (
    RowScorer,
    Teacher,
    knowledge_from_scorer,
    plain,
    rows_to_teach,
)
from recdistill.teachers.baselines import BASELINES, PopularityScorer, baselines, evaluate_baselines
from recdistill.teachers.embedding import EmbeddingOptions, EmbeddingTeacher, TextQuery
from recdistill.teachers.graph import GraphOptions, GraphScorer
from recdistill.teachers.graph_teacher import GraphTeacher
from recdistill.teachers.precomputed import precomputed
from recdistill.teachers.text import ItemText, encode_text, whiten
from recdistill.teachers.transitions import TransitionGraph
from recdistill.teachers.tuning import tune

#: Teachers that answer a dataset; the third, `precomputed`, has already answered.
TEACHERS: dict[str, type[GraphTeacher] | type[EmbeddingTeacher]] = {
    GraphTeacher.name: GraphTeacher,
    EmbeddingTeacher.name: EmbeddingTeacher,
}

__all__ = [
    "BASELINES",
    "TEACHERS",
    "EmbeddingOptions",
    "EmbeddingTeacher",
    "GraphOptions",
    "GraphScorer",
    "GraphTeacher",
    "ItemText",
    "PopularityScorer",
    "RowScorer",
    "Teacher",
    "TextQuery",
    "TransitionGraph",
    "baselines",
    "encode_text",
    "evaluate_baselines",
    "knowledge_from_scorer",
    "plain",
    "precomputed",
    "rows_to_teach",
    "tune",
    "whiten",
]
