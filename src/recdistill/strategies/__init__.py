"""Strategies: what the student learns from the teacher. No strategy at all is the baseline ``none``."""

from typing import Final

from recdistill.strategies.base import ListStrategy, Strategy
from recdistill.strategies.cd import CD
from recdistill.strategies.dcd import DCD
from recdistill.strategies.de import DE
from recdistill.strategies.freqd import FreqD
from recdistill.strategies.hetcomp import HetComp
from recdistill.strategies.hint import Hint
from recdistill.strategies.htd import HTD
from recdistill.strategies.importance import Importance
from recdistill.strategies.pckd import PCKD
from recdistill.strategies.rce import RCE
from recdistill.strategies.rd import RD
from recdistill.strategies.rrd import RRD
from recdistill.strategies.soft_labels import SoftLabels
from recdistill.strategies.unkd import UnKD

STRATEGIES: Final[dict[str, type[Strategy]]] = {
    "cd": CD,
    "dcd": DCD,
    "de": DE,
    "freqd": FreqD,
    "hetcomp": HetComp,
    "hint": Hint,
    "htd": HTD,
    "importance": Importance,
    "pckd": PCKD,
    "rce": RCE,
    "rd": RD,
    "rrd": RRD,
    "soft_labels": SoftLabels,
    "unkd": UnKD,
}

__all__ = [
    "CD",
    "DCD",
    "DE",
    "HTD",
    "PCKD",
    "RCE",
    "RD",
    "RRD",
    "STRATEGIES",
    "FreqD",
    "HetComp",
    "Hint",
    "Importance",
    "ListStrategy",
    "SoftLabels",
    "Strategy",
    "UnKD",
]
