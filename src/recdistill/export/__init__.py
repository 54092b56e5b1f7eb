"""A trained student as one saved thing: a recommender folder, an export for servers and the Hub, answers for files."""

from recdistill.export.batch import BatchReport, recommend_file
from recdistill.export.explain import explain
from recdistill.export.exporting import ExportReport, export_recommender
from recdistill.export.extending import extend_export
from recdistill.export.fold import fold
from recdistill.export.hub import pull, push
from recdistill.export.recommender import PRIOR, REPEATS, Recommender, load_scorer
from recdistill.export.scorer import ModelScorer

__all__ = [
    "PRIOR",
    "REPEATS",
    "BatchReport",
    "ExportReport",
    "ModelScorer",
    "Recommender",
    "explain",
    "export_recommender",
    "extend_export",
    "fold",
    "load_scorer",
    "pull",
    "push",
    "recommend_file",
]
