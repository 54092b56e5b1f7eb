"""Judge every model the same way: ranks, metrics, slices, significance, latency, report."""

from recdistill.evaluate.accuracy import KS, METRICS, mean_metrics, row_metric
from recdistill.evaluate.beyond import beyond_accuracy
from recdistill.evaluate.bootstrap import Bootstrap
from recdistill.evaluate.comparing import comparison_report
from recdistill.evaluate.difficulty import session_difficulty
from recdistill.evaluate.evaluation import Evaluation, compare_evaluations, require_same_protocol
from recdistill.evaluate.latency import Latency, LatencyComparison, compare_latency, measure_latency
from recdistill.evaluate.ranks import RankPair, Scorer, ranks_of_new_items, target_ranks, top_items
from recdistill.evaluate.report import Report, ReportLine, SliceTable
from recdistill.evaluate.significance import (
    Comparison,
    compare_many,
    compare_rows,
    holm,
    sign_flip_p,
)
from recdistill.evaluate.slices import (
    history_length_slices,
    hop_distances,
    hop_slices,
    popularity_slices,
    slice_masks,
)

__all__ = [
    "KS",
    "METRICS",
    "Bootstrap",
    "Comparison",
    "Evaluation",
    "Latency",
    "LatencyComparison",
    "RankPair",
    "Report",
    "ReportLine",
    "Scorer",
    "SliceTable",
    "beyond_accuracy",
    "compare_evaluations",
    "compare_latency",
    "compare_many",
    "compare_rows",
    "comparison_report",
    "history_length_slices",
    "holm",
    "hop_distances",
    "hop_slices",
    "mean_metrics",
    "measure_latency",
    "popularity_slices",
    "ranks_of_new_items",
    "require_same_protocol",
    "row_metric",
    "session_difficulty",
    "sign_flip_p",
    "slice_masks",
    "target_ranks",
    "top_items",
]
