"""Runs of one name told apart by what differs between them: their teacher, and the options they were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recdistill.config import RunConfig
from recdistill.runs import MANIFEST, read_json

if TYPE_CHECKING:
    from recdistill.experiments.results import Result

TEACHER: Final = "taught by"
#: Not of a model: where its files lie, its seed, how often it was looked at, rows without knowledge.
_PLACES: Final = frozenset(
    {
        "dataset",
        "knowledge",
        "words.folder",
        "select.file",
        "select.run",
        "refit.run",
        "seed",
        "label",
        "recipe",
    }
    | {"train.checkpoint_minutes", "train.coverage", "train.evaluate_every"}
)
_SHOWN = 3  # differences in a name, at most


def settings_of(config: RunConfig) -> dict[str, str]:
    """Return what a run was given, as ``key -> value`` words, and who taught it."""
    dump = config.model_dump(mode="json")
    terms = {term["name"]: {"weight": term["weight"], **term["options"]} for term in dump.pop("strategies")}
    words = {key: value for key, value in _flat(dump | terms) if key not in _PLACES}
    if config.knowledge is not None:
        words[TEACHER] = _teacher(Path(config.knowledge))
    return words


def _teacher(folder: Path) -> str:
    """Return the name of the teacher whose knowledge lies in a folder, or that of the folder if it is gone."""
    manifest = folder / MANIFEST
    known = read_json(manifest).get("teacher") if manifest.is_file() else None
    return str(known or folder.name)


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a section of a config as pairs; options stand under the name of their part: ``sasrec.dropout``."""
    pairs: list[tuple[str, str]] = []
    for key, value in section.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{section.get('name')}." if key == "options" else f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", str(value)))
    return pairs


def tell_apart(results: Sequence[Result]) -> list[Result]:
    """Return the results, those that share a name with what differs between them added to it.

    The commonest value of a setting is not said. What still has the same name gets a number.
    """
    shared = {name for name, count in Counter(result.name for result in results).items() if count > 1}
    named = [
        replace(result, name=_longer(result, [one for one in results if one.name == result.name]))
        if result.name in shared
        else result
        for result in results
    ]
    taken: Counter[str] = Counter()
    final = []
    for result in named:
        taken[result.name] += 1
        number = taken[result.name]
        final.append(result if number == 1 else replace(result, name=f"{result.name} #{number}"))
    return final


def _longer(result: Result, alike: Sequence[Result]) -> str:
    """Return the name of one result with what is its own among those of the same name."""
    keys = sorted({key for one in alike for key in one.settings}, key=lambda key: (key != TEACHER, key))
    said = []
    for key in keys:
        values = Counter(one.settings.get(key, "") for one in alike)
        usual, count = values.most_common(1)[0]
        own = result.settings.get(key, "")
        if len(values) == 1 or (key != TEACHER and own == usual and count > 1) or not own:
            continue
        said.append(f"{TEACHER} {own}" if key == TEACHER else f"{key}={own}")
    more = ["..."] if len(said) > _SHOWN else []
    return ", ".join([result.name, *said[:_SHOWN], *more])
