"""From a checked request to an answer: names become indices, the limits are held, lists get their titles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, DataError
from recdistill.serve.engine import Engine
from recdistill.serve.fleet import Loaded, Slot
from recdistill.serve.limits import LimitError, Limits
from recdistill.serve.schemas import ExplainRequest, Filters, RecommendRequest, SimilarRequest
from recdistill.serve.scorer import Ranked

Ints = npt.NDArray[np.int64]
Names = Sequence[str | int]
_SHOWN: Final = 3


def histories_of(request: RecommendRequest, limits: Limits) -> list[list[str]]:
    """Return the histories of a request.

    Raises
    ------
    ConfigError
        Neither or both of `history` and `histories` are given, or a limit is passed.
    """
    if (request.history is None) == (request.histories is None):
        raise ConfigError("the request needs history or histories, and not both.")
    given = [request.history] if request.history is not None else request.histories
    histories: list[Names] = [one for one in given or [] if one is not None]
    if not histories:
        raise ConfigError("histories is empty. Allowed: at least one history.")
    if len(histories) > limits.batch:
        raise LimitError("the request", len(histories), limits.batch, "histories")
    return [checked_names(history, limits, "history", limits.history) for history in histories]


def checked_names(names: Names, limits: Limits, what: str, most: int) -> list[str]:
    """Return names as texts.

    Raises
    ------
    LimitError
        There are more than `most`, or one is too long.
    """
    if len(names) > most:
        raise LimitError(what, len(names), most, "items")
    texts = [name if isinstance(name, str) else str(name) for name in names]
    longest = max(map(len, texts), default=0)
    if longest > limits.name_length:
        raise LimitError(f"a name in {what}", longest, limits.name_length, "signs")
    return texts


def indices(engine: Engine, names: Sequence[str], unknown: str, what: str) -> tuple[Ints, list[str]]:
    """Return the indices of the known names, and the unknown ones.

    Raises
    ------
    DataError
        A name is unknown and `unknown` is ``"refuse"``.
    """
    found = [engine.items.find(name) for name in names]
    missing = [name for name, item in zip(names, found, strict=True) if item is None]
    if missing and unknown == "refuse":
        shown = ", ".join(repr(name[:60]) for name in missing[:_SHOWN])
        raise DataError(
            f"{what}: {len(missing)} of {len(names)} names are no id and no title, e.g. {shown}. "
            'Allowed: the items of GET /items?q=TITLE; or "unknown": "skip".'
        )
    return np.array([item for item in found if item is not None], dtype=np.int64), missing


def allowed_items(engine: Engine, request: Filters, limits: Limits) -> Ints | None:
    """Return the only items that may be answered, ascending, or None: all.

    Raises
    ------
    ConfigError
        A list is too long, or a category unknown.
    DataError
        A name is unknown and the request refuses such.
    """
    parts: list[Ints] = []
    for what in ("allow", "candidates"):
        if (names := getattr(request, what)) is not None:
            texts = checked_names(names, limits, what, limits.names)
            parts.append(np.unique(indices(engine, texts, request.unknown, what)[0]))
    for column, values in (request.category or {}).items():
        parts.append(
            engine.items.in_category(column, checked_names(values, limits, "category", limits.names))
        )
    if not parts:
        return None
    among = parts[0]
    for part in parts[1:]:
        among = np.intersect1d(among, part, assume_unique=True)
    return among


def recommend(
    slot: Slot, request: RecommendRequest, histories: list[list[str]], limits: Limits
) -> dict[str, Any]:
    """Return the body of a `RecommendAnswer`.

    Raises
    ------
    ConfigError
        A limit is passed or an option has a wrong value.
    DataError
        A name is unknown, or nothing of a history is known.
    """
    if request.k > limits.k:
        raise ConfigError(f"k is {request.k}. Allowed: 1 to {limits.k:,}.")
    now = slot.now
    engine = now.engine
    start = time.perf_counter()
    resolved = [
        indices(engine, names, request.unknown, f"history {row}") for row, names in enumerate(histories)
    ]
    deny, _ = indices(engine, checked_names(request.deny or [], limits, "deny", limits.names), "skip", "deny")
    for row, (items, missing) in enumerate(resolved):
        if not len(items):
            known = f" ({len(missing)} unknown names left out)" if missing else ""
            raise DataError(
                f"history {row} is empty{known}. Allowed: at least one item that the model knows."
            )
    ranked = engine.recommend(
        [items for items, _ in resolved],
        request.k,
        exclude_seen=request.exclude_seen,
        deny=deny,
        among=allowed_items(engine, request, limits),
    )
    milliseconds = 1e3 * (time.perf_counter() - start)
    answers = [
        {"items": scored(engine, one), "unknown": missing}
        for one, (_, missing) in zip(ranked, resolved, strict=True)
    ]
    return {
        "model": slot.name,
        "version": now.engine.version[:12],
        "ms": round(milliseconds, 3),
        "answers": answers,
    }


def similar(slot: Slot, request: SimilarRequest, limits: Limits) -> dict[str, Any]:
    """Return the body of a `SimilarAnswer`."""
    if request.k > limits.k:
        raise ConfigError(f"k is {request.k}. Allowed: 1 to {limits.k:,}.")
    engine = slot.now.engine
    item = _one(engine, request.item, limits)
    return {
        "model": slot.name,
        "item": named(engine, item),
        "items": scored(engine, engine.similar(item, request.k)),
    }


def explain(slot: Slot, request: ExplainRequest, limits: Limits) -> dict[str, Any]:
    """Return the body of an `ExplainAnswer`."""
    engine = slot.now.engine
    names = checked_names(request.history, limits, "history", limits.history)
    history, missing = indices(engine, names, request.unknown, "history")
    item = _one(engine, request.item, limits)
    if not len(history):
        raise DataError("the history is empty. Allowed: at least one item that the model knows.")
    score, effects = engine.explain(history, item)
    return {
        "model": slot.name,
        "item": {**named(engine, item), "score": score},
        "history": [{**named(engine, one.item), "effect": one.effect} for one in effects],
        "unknown": missing,
    }


def facts(slot: Slot) -> dict[str, Any]:
    """Return the body of a `ModelFacts`."""
    now: Loaded = slot.now
    engine = now.engine
    return {
        "name": slot.name,
        "version": engine.version[:12],
        "share": slot.share,
        "items": len(engine.items),
        "length": engine.length,
        "fingerprint": engine.fingerprint[:12],
        "loaded": now.loaded,
        "categories": {column: sorted(values)[:200] for column, values in engine.items.categories.items()},
        "config": {
            name: value for name, value in engine.config.items() if name != "cold" and _is_small(value)
        },
    }


def named(engine: Engine, item: int) -> dict[str, Any]:
    """Return id and title of an item."""
    return {"id": engine.items.ids[item], "title": engine.items.titles[item]}


def scored(engine: Engine, ranked: Ranked) -> list[dict[str, Any]]:
    """Return ids, titles and scores of a list."""
    pairs = zip(ranked.items.tolist(), ranked.scores.tolist(), strict=True)
    return [{**named(engine, item), "score": round(score, 6)} for item, score in pairs]


def _one(engine: Engine, name: str | int, limits: Limits) -> int:
    texts = checked_names([name], limits, "item", 1)
    return int(indices(engine, texts, "refuse", "item")[0][0])


def _is_small(value: Any) -> bool:
    return not isinstance(value, list | dict) or len(value) <= 50
