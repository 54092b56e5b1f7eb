"""The exception tree.

Every message has three parts: what is wrong (with the value), what is allowed, what to do next (a command).

* RecdistillError
    - DataError           a log, a catalogue or a split that cannot be used
    - KnowledgeError      a knowledge folder that does not fit, or lacks what a strategy needs
    - ConfigError         an option that does not exist or has a wrong value
    - FingerprintError    a folder that was made from another dataset
    - RunError            a run folder that is incomplete, or in the way
    - TrainingError       a run that stopped (a loss that is not finite)
    - MissingExtraError   an optional dependency that is not installed
"""

import difflib
from collections.abc import Iterable


class RecdistillError(Exception):
    """Base of every error that recdistill raises for a user's mistake."""


class DataError(RecdistillError):
    """A log, a catalogue or a split cannot be used."""


class KnowledgeError(RecdistillError):
    """A knowledge folder does not fit, or lacks what a strategy needs."""


class ConfigError(RecdistillError):
    """An option does not exist or has a value that is not allowed."""


class FingerprintError(RecdistillError):
    """A folder was made from another dataset."""


class RunError(RecdistillError):
    """A run folder is incomplete, or already holds something else."""


class TrainingError(RecdistillError):
    """Training stopped because the loss is not finite."""


class MissingExtraError(RecdistillError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. It comes with: pip install 'recdistill[{extra}]'")


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not in a table, with the nearest names first.

    Parameters
    ----------
    kind
        What the name stands for, e.g. ``"student"``.
    name
        The value that was given.
    allowed
        The names that exist.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(names)}.")
