"""Checks of a strategy's options."""

from __future__ import annotations

from recdistill.errors import ConfigError


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `ConfigError` if `value` is not among the `allowed` ones of an option."""
    if value not in allowed:
        raise ConfigError(
            f"{option} is {value!r}. Allowed: {', '.join(allowed)}. "
            f"Set it in the strategy's options: strategies[..].options.{option}"
        )


def positive(**options: float) -> None:
    """Raise `ConfigError` if an option is not above 0."""
    for option, value in options.items():
        if not value > 0:
            raise ConfigError(f"{option} is {value}. Allowed: above 0. Set it in the strategy's options.")


def not_negative(**options: float) -> None:
    """Raise `ConfigError` if an option is below 0."""
    for option, value in options.items():
        if not value >= 0:
            raise ConfigError(f"{option} is {value}. Allowed: 0 or more. Set it in the strategy's options.")


def share(option: str, value: float) -> None:
    """Raise `ConfigError` if an option is not between 0 and 1."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{option} is {value}. Allowed: 0 to 1. Set it in the strategy's options.")
