"""How two models teach each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from recdistill.errors import ConfigError, unknown_name

WEIGHTS: Final = ("adaptive", "none")
RANKS: Final = ("live", "answers", "folds", "positions")


@dataclass(frozen=True)
class MutualOptions:
    """How two models teach each other.

    Attributes
    ----------
    rounds
        Of both phases, after the student's own training; 1 is the ablation of the loop.
    lambda_teacher, lambda_student
        lambda_1 and lambda_2: weight of the divergence where the language model learns, and where the student does.
    temperature_teacher, temperature_student
        T_1 and T_2 of the same.
    top_m
        M, log-probabilities kept of each row between phases.
    exact
        Whether the divergence is over all items instead of M and the rest.
    weights
        ``adaptive``: rows are weighted by the rank gap; ``none``: all alike, the ablation.
    ranks
        Where the ranks of the weights come from. ``live``: the partner's from its answers before the phase, the
        learner's own from the step itself. ``answers``: both from answers before the phase; a language model that has
        answered nothing yet ranks every true item last. Both are of models that were trained on these rows. ``folds``:
        of models that were not, measured once before the first round: `folds` pairs, each without its share of the
        sequences. ``positions``: one such pair without the last training row of each sequence, whose ranks stand for
        the whole sequence.
    folds
        Pairs of ``ranks="folds"``.
    refresh
        Whether every round brings the student's newest item vectors to the language model, or the first one alone.
    keep_answers
        Whether the answers between phases stay on disk when all rounds are done.
    """

    rounds: int = 3
    lambda_teacher: float = 1.0
    lambda_student: float = 1.0
    temperature_teacher: float = 2.0
    temperature_student: float = 2.0
    top_m: int = 200
    exact: bool = False
    weights: Literal["adaptive", "none"] = "adaptive"
    ranks: Literal["live", "answers", "folds", "positions"] = "live"
    folds: int = 2
    refresh: bool = True
    keep_answers: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("weights", WEIGHTS), ("ranks", RANKS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, str(getattr(self, name)), allowed)
        least = {"rounds": 1, "top_m": 1, "folds": 2, "lambda_teacher": 0, "lambda_student": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise self._refused(name, f"{value} or more")
        for name in ("temperature_teacher", "temperature_student"):
            if not getattr(self, name) > 0:
                raise self._refused(name, "above 0")

    def _refused(self, name: str, allowed: str) -> ConfigError:
        return ConfigError(
            f"{name} is {getattr(self, name)}. Allowed: {allowed}. See the options with: recdistill mutual --help"
        )
