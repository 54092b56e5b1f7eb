"""Changes to a config: deep merges and ``key=value`` words from the command line."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recdistill.config.schema import (
    EncoderConfig,
    PartConfig,
    RunConfig,
    StrategyConfig,
    StudentConfig,
    WordsConfig,
)
from recdistill.errors import ConfigError, unknown_name

#: What a part says of itself, by its section; everything else is an option of its constructor.
_OWN_KEYS: dict[str, set[str]] = {
    section: {key for key in made.model_fields if key not in ("name", "options")}
    for section, made in (
        ("student", StudentConfig),
        ("loss", PartConfig),
        ("item_encoder", EncoderConfig),
        ("words", WordsConfig),
        ("strategies", StrategyConfig),
    )
}


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it; sections merge, everything else is replaced."""
    result = copy.deepcopy(dict(base))
    for key, value in change.items():
        old = result.get(key)
        result[key] = (
            merge(old, value)
            if isinstance(old, dict) and isinstance(value, Mapping)
            else copy.deepcopy(value)
        )
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises
    ------
    ConfigError
        It does not exist, or is no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"config {path} is no mapping of keys to values. See examples/*.yaml.")
    return content


def apply_overrides(config: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return `config` with ``key=value`` words applied; values are read as YAML.

    A key is a path of names (``train.epochs``), or starts with the name of a part of this run
    (``sasrec.dropout``, ``importance.weight``, ``collaborative.offset``), whose options it then sets.

    Raises
    ------
    ConfigError
        A word has no ``=``, or names nothing in the config.
    """
    result = copy.deepcopy(config)
    for word in words:
        key, sign, text = word.partition("=")
        if not sign:
            raise ConfigError(f"{word!r} is no override. Write key=value, e.g. train.epochs=50.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(
                f"the value of {word!r} is not valid YAML. Quote it, e.g. label='a: b'."
            ) from None
        _set(result, key.strip().split("."), value)
    return result


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
    parts = {part["name"]: (section, part) for section, part in _parts(config)}
    if path[0] in parts and len(path) == 2:
        section_name, part = parts[path[0]]
        own = path[1] in _OWN_KEYS[section_name]
        (part if own else part.setdefault("options", {}))[path[1]] = value
        return
    if path[0] not in RunConfig.model_fields:
        raise unknown_name(
            "key", ".".join(path), [*RunConfig.model_fields, *(f"{name}.<option>" for name in parts)]
        )
    section = config
    for name in path[:-1]:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            raise ConfigError(f"key {'.'.join(path)!r} goes into {name!r}, which is no section.")
    section[path[-1]] = value


def _parts(config: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of this run, each with the section it stands in."""
    singles = [(section, config.get(section)) for section in ("student", "loss", "item_encoder", "words")]
    terms = [("strategies", part) for part in config.get("strategies", [])]
    return [(name, part) for name, part in [*singles, *terms] if isinstance(part, dict) and "name" in part]


def validate(config: Mapping[str, Any]) -> RunConfig:
    """Return the checked config.

    Raises
    ------
    ConfigError
        A key does not exist (with the nearest one that does), or a value is not allowed.
    """
    try:
        return RunConfig.model_validate(config)
    except ValidationError as error:
        raise _readable(error) from None


def _readable(error: ValidationError) -> ConfigError:
    problem = error.errors()[0]
    path = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = RunConfig
        for step in problem["loc"][:-1]:
            annotation = section.model_fields[step].annotation if isinstance(step, str) else section
            section = getattr(annotation, "__args__", (annotation,))[0]
        where = "".join(f" of {step}" for step in problem["loc"][-2:-1])
        return unknown_name(f"key{where}", str(problem["loc"][-1]), section.model_fields)
    return ConfigError(f"{path}: {problem['msg']}; the value is {problem.get('input')!r}.")
