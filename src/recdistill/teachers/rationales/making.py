"""From a maker's name and options to its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recdistill.errors import ConfigError, RunError, unknown_name
from recdistill.knowledge.words import KIND, Words, load_words, save_words
from recdistill.runs import MANIFEST, read_manifest
from recdistill.teachers.rationales.asking import Maker, Work


def maker(makers: Mapping[str, type[Maker]], name: str, options: Mapping[str, Any]) -> Maker:
    """Return a maker by its name.

    Raises
    ------
    ConfigError
        The name or an option does not exist, or a value is not allowed.
    """
    if name not in makers:
        raise unknown_name("kind of rationales", name, makers)
    known = [field.name for field in fields(makers[name])]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    try:
        return makers[name](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be made with {dict(options)}: {error}. Allowed: options of the right kind. See "
            f"recdistill rationales {name} --dry-run."
        ) from error


def make_words(chosen: Maker, work: Work) -> Words:
    """Let a maker work, and write its folder. Answers that are there already are not asked for again.

    Raises
    ------
    RunError
        The folder holds something else.
    KnowledgeError
        It holds answers of another model or to other prompts, or a row would use what it may not.
    """
    require_own(work.out, chosen.name)
    words, tables, encoder = chosen.make(work)
    save_words(words, work.out, work.dataset, tables, encoder=encoder.save)
    return load_words(work.out, work.dataset)


def require_own(folder: Path, name: str) -> None:
    """Refuse a folder that something else is in.

    Raises
    ------
    RunError
        It is not empty, and no maker of this name wrote it.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if (folder / MANIFEST).is_file():
        found = read_manifest(folder, KIND).get("maker")
        if found != name:
            raise RunError(f"{folder} holds rationales of {found!r}, not of {name!r}. Choose another --out.")
    elif not (folder / "answers").is_dir():
        raise RunError(
            f"{folder} is in the way: recdistill rationales did not write it. Allowed: a new folder, or one that this "
            "command began. Choose another --out."
        )
