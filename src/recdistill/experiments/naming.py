"""What a line's name stands for: a recipe, strategies and item encoders joined by ``+``; and what its run has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from recdistill.config import RunConfig
from recdistill.config.build import construct
from recdistill.config.resolve import strategy_section
from recdistill.errors import ConfigError, unknown_name
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.knowledge import WALKS
from recdistill.losses import LOSSES
from recdistill.recipes import RECIPES
from recdistill.strategies import STRATEGIES
from recdistill.students import STUDENTS

if TYPE_CHECKING:
    from recdistill.experiments.plan import TeacherFolder

__all__ = ["PLAIN", "applies", "available_strategies", "parts_of", "required_fields", "section_of", "titled"]

#: The line of the student without a teacher.
PLAIN: Final = "none"


def available_strategies() -> list[str]:
    """Return every name that a line can have: recipes, strategies and item encoders, each once."""
    parts = {
        "importance",
        "collaborative",
        "ids",
    }  # parts of the dllm2rec recipes, named where they are wanted
    names = [*RECIPES, *STRATEGIES, *ITEM_ENCODERS]
    return [name for name in dict.fromkeys(names) if name not in parts]


def section_of(name: str) -> dict[str, Any]:
    """Return the part of a config that a line's name stands for; item encoders may stand among the strategies."""
    if name in RECIPES:
        return strategy_section(name)
    parts = name.split("+")
    encoders = [part for part in parts if part in ITEM_ENCODERS]
    terms = [part for part in parts if part not in ITEM_ENCODERS]
    if len(encoders) > 1:
        raise ConfigError(f"{name!r} has {len(encoders)} item encoders. Allowed: one. Leave one out.")
    if wrong := next((part for part in terms if part not in STRATEGIES), None):
        raise unknown_name("strategy", wrong, [*STRATEGIES, *RECIPES, *ITEM_ENCODERS])
    section: dict[str, Any] = {"strategies": [{"name": part} for part in terms]}
    return section | ({"item_encoder": {"name": encoders[0]}} if encoders else {})


def required_fields(config: RunConfig) -> Iterable[str]:
    """Return the fields of the knowledge that a run needs, given its options."""
    terms = [
        construct("strategy", STRATEGIES, term.name, term.options).requires for term in config.strategies
    ]
    walks = {WALKS} if config.train.walks else frozenset()
    return frozenset().union(ITEM_ENCODERS[config.item_encoder.name].requires, walks, *terms)


def parts_of(config: RunConfig) -> list[str]:
    """Return the names of a run's parts: student, loss, item encoder, strategies."""
    return [
        config.student.name,
        config.loss.name,
        config.item_encoder.name,
        *(term.name for term in config.strategies),
    ]


def applies(word: str, config: RunConfig) -> bool:
    """Return whether a word is meant for this run: it names no part, or one that the run has."""
    first, dot, _ = word.partition("=")[0].strip().partition(".")
    parts = {*STRATEGIES, *ITEM_ENCODERS, *STUDENTS, *LOSSES}
    return not dot or first not in parts or first in parts_of(config)


def titled(name: str, teacher: TeacherFolder) -> str:
    """Return a line's name, with its teacher's where there are several."""
    return f"{name} [{teacher.label}]" if teacher.label else name
