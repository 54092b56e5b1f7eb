"""From what a user says to a full config: preset, recipe, file, flags, ``key=value`` words, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recdistill.config.overrides import apply_overrides, merge, read_yaml, validate
from recdistill.config.presets import PRESETS
from recdistill.config.schema import RunConfig
from recdistill.errors import ConfigError, unknown_name
from recdistill.recipes import RECIPES, Recipe, recipe
from recdistill.runs import atomic_file
from recdistill.strategies import STRATEGIES


def resolve(
    flags: Mapping[str, Any],
    *,
    strategy: str | None,
    file: Path | None,
    words: Sequence[str],
    whole: str | None = None,
) -> RunConfig:
    """Return the checked config of a run.

    Parameters
    ----------
    flags
        Values of the command line's flags that were given, in the config's shape.
    strategy
        A recipe (``dllm2rec``, ``none``) or strategies joined by ``+`` (``rd+hint``).
    file
        A YAML file, or None.
    words
        ``key=value`` overrides.
    whole
        A recipe whose preset of student, loss and training is taken too; `strategy` is then None.

    Raises
    ------
    ConfigError
        A name, key or value that is not allowed.
    """
    said = merge(read_yaml(file) if file else {}, flags)
    variant = said.get("student", {}).get("variant", "modern")
    if variant not in PRESETS:
        raise unknown_name("variant", str(variant), PRESETS)
    base = PRESETS[variant]
    if whole:
        if strategy:
            raise ConfigError(
                f"--recipe {whole} and --strategy {strategy} both say what is learned. Allowed: one of them. Leave "
                "--strategy out, or pass the recipe's strategy with options: rrd.weight=0.05"
            )
        base, strategy = merge(base, _preset(whole)), whole
    if strategy:
        base = merge(base, {"recipe": strategy, **strategy_section(strategy)})
    return validate(apply_overrides(merge(base, said), words))


def _preset(name: str) -> Mapping[str, Any]:
    """Return what a recipe says of student, loss and training."""
    known = {one.name: one.preset for one in RECIPES.values() if one.preset is not None}
    if name not in known:
        raise unknown_name("recipe for a whole run", name, known)
    return known[name]


def strategy_section(name: str) -> dict[str, Any]:
    """Return the part of a config that a recipe, or strategies joined by ``+``, stand for.

    Raises
    ------
    ConfigError
        The name is neither a recipe nor a strategy.
    """
    if name in RECIPES:
        return recipe_section(recipe(name))
    strategies = []
    words: dict[str, Any] = {}
    for part in name.split("+"):
        chosen = RECIPES.get(part)
        if chosen is not None and chosen.words is not None and not words:
            words = {"words": {"name": chosen.words[0], "options": dict(chosen.words[1])}}
            continue
        if part not in STRATEGIES:
            raise unknown_name("strategy", part, [*STRATEGIES, *RECIPES])
        alone = RECIPES.get(part)  # λ of a strategy alone: some sum over a list, and need a small one
        weights = [weight for weight, name, _ in alone.strategies if name == part] if alone else []
        strategies.append({"name": part, **({"weight": weights[0]} if weights else {})})
    return {"strategies": strategies, **words}


def recipe_section(chosen: Recipe) -> dict[str, Any]:
    """Return the part of a config that a recipe stands for, without its preset."""
    section: dict[str, Any] = {
        "strategies": [{"weight": w, "name": n, "options": dict(o)} for w, n, o in chosen.strategies],
    }
    if chosen.item_encoder is not None:
        name, options = chosen.item_encoder
        section["item_encoder"] = {"name": name, "options": dict(options)}
    if chosen.words is not None:
        name, options = chosen.words
        section["words"] = {"name": name, "options": dict(options)}
    return section


def write_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config as YAML, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(), sort_keys=False), encoding="utf-8")


def read_config(path: Path) -> RunConfig:
    """Read a resolved config."""
    return validate(read_yaml(path))


def describe(config: RunConfig) -> str:
    """Return a run's name in tables: its label, or e.g. ``sasrec (paper, bce) + dllm2rec``; a refit says so."""
    name = f"{config.student.name} ({config.student.variant}, {config.loss.name})"
    if (method := method_of(config)) is not None:
        name = f"{name} + {method}"
    name = config.label or name
    if config.refit.rows == "train":
        return name
    return f"{name}, {'counts of' if config.refit.counts_only else 'refit on'} {config.refit.rows}"


def method_of(config: RunConfig) -> str | None:
    """Return what a teacher's knowledge enters by: the recipe, or the names of the parts; None: no teacher."""
    if config.recipe:
        return None if config.recipe == "none" else config.recipe
    parts = [s.name for s in config.strategies]
    if config.item_encoder.name != "ids":
        parts.append(config.item_encoder.name)
    if config.words.name:
        parts.append(config.words.name)
    return " + ".join(parts) or None
