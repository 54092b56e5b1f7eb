"""The transition-graph + text teacher: sparse products, seconds, no language model."""

from recdistill.teachers.graph.scorer import GraphOptions, GraphScorer
from recdistill.teachers.graph.teacher import GraphTeacher
from recdistill.teachers.graph.transitions import TransitionGraph
from recdistill.teachers.graph.tuning import tune

__all__ = ["GraphOptions", "GraphScorer", "GraphTeacher", "TransitionGraph", "tune"]
