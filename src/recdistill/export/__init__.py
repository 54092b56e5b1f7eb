"""A trained student as one saved thing."""

from recdistill.export.explain import explain
from recdistill.export.fold import fold
from recdistill.export.recommender import Recommender, load_scorer
from recdistill.export.scorer import ModelScorer

__all__ = ["ModelScorer", "Recommender", "explain", "fold", "load_scorer"]
