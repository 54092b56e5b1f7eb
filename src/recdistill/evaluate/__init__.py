"""Judge every model the same way: ranks, metrics, slices, significance, latency, report."""

from recdistill.evaluate.accuracy import KS, METRICS, mean_metrics, row_metric
from recdistill.evaluate.evaluation import Evaluation, compare_evaluations, require_same_protocol
from recdistill.evaluate.ranks import RankPair, Scorer, target_ranks, top_items
from recdistill.evaluate.significance import (
    Bootstrap,
    Comparison,
    compare_many,
    compare_rows,
    holm,
    sign_flip_p,
)

__all__ = [
    "KS",
    "METRICS",
    "Bootstrap",
    "Comparison",
    "Evaluation",
    "RankPair",
    "Scorer",
    "compare_evaluations",
    "compare_many",
    "compare_rows",
    "holm",
    "mean_metrics",
    "require_same_protocol",
    "row_metric",
    "sign_flip_p",
    "target_ranks",
    "top_items",
]
