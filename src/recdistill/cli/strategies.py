"""``recdistill strategies``: which strategy for the knowledge at hand, told by the code itself."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def strategies(
    name: Annotated[
        str | None, typer.Argument(help="One strategy or item encoder: its equations and options.")
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Mark what this knowledge folder has enough for.", show_default=False),
    ] = None,
) -> None:
    """Say which strategies, item encoders and recipes there are and what each needs."""
    from recdistill.errors import unknown_name
    from recdistill.item_encoders import ITEM_ENCODERS
    from recdistill.strategies import STRATEGIES

    parts: dict[str, type[Any]] = {**STRATEGIES, **ITEM_ENCODERS}
    if name is not None:
        if name not in parts:
            raise unknown_name("strategy or item encoder", name, parts)
        print(_detail(name, parts[name]))
        return
    from rich.console import Console

    fields = None if knowledge is None else _fields(knowledge)
    console = Console(highlight=False)
    console.print(_table("Strategies (--strategy NAME, joined with +)", STRATEGIES, fields))
    console.print(_table("Item encoders (item_encoder.name=NAME)", ITEM_ENCODERS, fields))
    console.print(_recipes(fields))
    console.print("more: recdistill strategies NAME; which one to begin with: docs/strategies.md")


def _fields(folder: Path) -> frozenset[str]:
    """Return what the knowledge of a folder has."""
    from recdistill.knowledge import available_fields, is_words, load_words

    if is_words(folder):
        return frozenset({_rationales(load_words(folder).maker)})
    return available_fields(folder)


def _rationales(maker: str) -> str:
    return f"rationales of {maker}"


def _table(title: str, parts: Mapping[str, type[Any]], fields: frozenset[str] | None) -> Any:
    """Return one line a part: name, what it is, what it needs, where it comes from."""
    from rich.table import Table

    table = Table("name", "what it is", "needs", "from", title=title, title_justify="left")
    if fields is not None:
        table.add_column("fits")
    for name, part in parts.items():
        needs = _needs(part)
        cells = [name, _first_line(part), ", ".join(sorted(needs)) or "nothing", _source(part)]
        table.add_row(*cells, *_fits(needs, fields))
    return table


def _recipes(fields: frozenset[str] | None) -> Any:
    from rich.table import Table

    from recdistill.config.attach import ATTACH
    from recdistill.recipes import RECIPES

    table = Table("name", "what it is", "made of", title="Recipes (--strategy NAME)", title_justify="left")
    if fields is not None:
        table.add_column("fits")
    for recipe in RECIPES.values():
        made = [f"{weight:g} {part}" for weight, part, _ in recipe.strategies]
        made += [recipe.item_encoder[0]] if recipe.item_encoder else []
        needs = recipe.requires
        if recipe.words is not None:
            told = _rationales(ATTACH[recipe.words[0]][1])
            made, needs = [*made, told], needs | {told}
        table.add_row(recipe.name, recipe.about, " + ".join(made) or "ids", *_fits(needs, fields))
    return table


def _needs(part: type[Any]) -> frozenset[str]:
    """Return the fields of the knowledge that a part needs with its default options."""
    from recdistill.strategies import Strategy

    return frozenset(part().requires if issubclass(part, Strategy) else part.requires)


def _fits(needs: Iterable[str], fields: frozenset[str] | None) -> list[str]:
    """Return the cell of the last column: yes, or what is missing; no cell if nobody asked."""
    if fields is None:
        return []
    missing = sorted(set(needs) - fields)
    return [f"no {', '.join(missing)}" if missing else "yes"]


def _first_line(part: type[Any]) -> str:
    return (inspect.getdoc(part) or "").split("\n")[0].rstrip(".")


def _source(part: type[Any]) -> str:
    """Return the link of a part's paper: the first one in its file."""
    text = inspect.getdoc(sys.modules[part.__module__]) or ""
    return next((word.rstrip(".,;)") for word in text.split() if word.startswith("https://")), "")


def _detail(name: str, part: type[Any]) -> str:
    """Return the head of a part's file, its parameters, and its options with their defaults."""
    options = [
        f"  {name}.{option}={parameter.default!r}"
        for option, parameter in inspect.signature(part).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    ]
    texts = (inspect.getdoc(sys.modules[part.__module__]), inspect.getdoc(part))
    return "\n\n".join(
        [*(text for text in texts if text), "\n".join(["Options and their defaults", "", *options])]
    )
