"""Results on disk, and reports over them."""

from recdistill.experiments.report import baseline_results, choose_reference, compare_results, oracle_results
from recdistill.experiments.results import (
    Result,
    evaluate_knowledge,
    evaluate_path,
    evaluate_run,
    seed_folders,
)

__all__ = [
    "Result",
    "baseline_results",
    "choose_reference",
    "compare_results",
    "evaluate_knowledge",
    "evaluate_path",
    "evaluate_run",
    "oracle_results",
    "seed_folders",
]
