"""Transitions, texts, fields and popularity as one teacher, with weights learned on validation rows."""

from recdistill.teachers.blend.signals import SignalOptions, Signals
from recdistill.teachers.blend.teacher import BlendScorer, BlendTeacher, scorer_from
from recdistill.teachers.blend.weights import learn_weights

__all__ = [
    "BlendScorer",
    "BlendTeacher",
    "SignalOptions",
    "Signals",
    "learn_weights",
    "scorer_from",
]
