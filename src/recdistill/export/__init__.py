"""A trained student as one saved thing."""

from recdistill.export.fold import fold
from recdistill.export.recommender import Recommender, load_scorer

__all__ = ["Recommender", "fold", "load_scorer"]
