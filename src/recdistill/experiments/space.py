"""What may be tuned in a run, and a config with tuned values."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from recdistill.config import RunConfig
from recdistill.config.overrides import apply_overrides, validate
from recdistill.item_encoders import ITEM_ENCODERS

__all__ = ["Parameter", "search_space", "with_values"]

#: λ of these is searched on a logarithmic scale: their papers and ports use values far below 0.1.
_SMALL_WEIGHTS: Final = frozenset({"dcd", "de", "freqd", "hetcomp", "hint", "htd", "pckd", "rrd"})
#: L2 of Adam as the paper tunes it; decoupled decay acts on another scale.
_DECAYS: Final[Mapping[str, tuple[float, ...]]] = {
    "adam": (0.0, 1e-7, 1e-6, 1e-5, 1e-4),
    "adamw": (0.0, 1e-3, 1e-2, 1e-1),
}


@dataclass(frozen=True)
class Parameter:
    """One dimension of a search.

    Attributes
    ----------
    key
        As in a ``key=value`` word: ``importance.weight``, ``train.learning_rate``.
    default
        What the config has before tuning.
    choices
        Allowed values, or empty: `low` to `high`.
    low, high
        Range, both ends included.
    step
        Distance of the allowed values, or None.
    log
        Whether the range is searched on a logarithmic scale.
    """

    key: str
    default: float
    choices: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    @property
    def holds_default(self) -> bool:
        """Whether the default is among the values that the search may try."""
        if self.choices:
            return self.default in self.choices
        places = None if self.step is None else (self.default - self.low) / self.step
        return self.low <= self.default <= self.high and (
            places is None or abs(places - round(places)) < 1e-9
        )

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key} in {', '.join(f'{value:g}' for value in self.choices)}"
        how = ", log scale" if self.log else f" in steps of {self.step:g}" if self.step else ""
        return f"{self.key} in {self.low:g} .. {self.high:g}{how}"


def search_space(config: RunConfig, fixed: Collection[str] = ()) -> list[Parameter]:
    """Return what is tuned in a run: each λ, the weight of the teacher's item vectors, weight decay, learning rate.

    Parameters
    ----------
    config
        The run before tuning; its values are the first trial.
    fixed
        Keys that somebody set by hand: they are not tuned.
    """
    space = [_weight(term.name, term.weight) for term in config.strategies]
    encoder = _encoder_weight(config)
    space += [encoder] if encoder else []
    decays = _DECAYS[config.train.optimizer]
    space.append(Parameter("train.weight_decay", config.train.weight_decay, choices=decays))
    space.append(Parameter("train.learning_rate", config.train.learning_rate, low=3e-4, high=3e-3, log=True))
    return [parameter for parameter in space if parameter.key not in fixed]


def _weight(name: str, default: float) -> Parameter:
    key = f"{name}.weight"
    if name in _SMALL_WEIGHTS:
        return Parameter(key, default, low=1e-3, high=1.0, log=True)
    return Parameter(key, default, low=0.1, high=1.0, step=0.1)


def _encoder_weight(config: RunConfig) -> Parameter | None:
    encoder = config.item_encoder
    signature = inspect.signature(ITEM_ENCODERS[encoder.name].__init__).parameters
    if "weight" not in signature:
        return None
    default = encoder.options.get("weight", signature["weight"].default)
    if not isinstance(default, (int, float)):
        return None
    return Parameter(f"{encoder.name}.weight", float(default), low=0.1, high=1.0, step=0.1)


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return the config with values laid over it; those of parts that this run does not have are passed over.

    An ablation so takes what the whole method was tuned to, as far as it still has the part.
    """
    parts = {"train", config.item_encoder.name, *(term.name for term in config.strategies)}
    words = [
        f"{key}={yaml.safe_dump(value).splitlines()[0]}"
        for key, value in values.items()
        if key.partition(".")[0] in parts
    ]
    return validate(apply_overrides(config.model_dump(), words))
