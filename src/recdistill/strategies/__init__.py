"""Strategies: what the student learns from the teacher. No strategy at all is the baseline ``none``."""

from typing import Final

from recdistill.strategies.base import ListStrategy, Strategy
from recdistill.strategies.hint import Hint
from recdistill.strategies.importance import Importance
from recdistill.strategies.rd import RD

STRATEGIES: Final[dict[str, type[Strategy]]] = {"hint": Hint, "importance": Importance, "rd": RD}

__all__ = ["RD", "STRATEGIES", "Hint", "Importance", "ListStrategy", "Strategy"]
