"""Results on disk, reports over them, and the paper's tables from a dataset and teachers."""

from recdistill.experiments.document import Document
from recdistill.experiments.plan import Line, Plan
from recdistill.experiments.planner import make_plan
from recdistill.experiments.report import baseline_results, choose_reference, compare_results, oracle_results
from recdistill.experiments.reproduction import describe_plan, reproduce
from recdistill.experiments.results import (
    Result,
    evaluate_knowledge,
    evaluate_path,
    evaluate_run,
    seed_folders,
)
from recdistill.experiments.tuning import Tuned, tune_config

__all__ = [
    "Document",
    "Line",
    "Plan",
    "Result",
    "Tuned",
    "baseline_results",
    "choose_reference",
    "compare_results",
    "describe_plan",
    "evaluate_knowledge",
    "evaluate_path",
    "evaluate_run",
    "make_plan",
    "oracle_results",
    "reproduce",
    "seed_folders",
    "tune_config",
]
