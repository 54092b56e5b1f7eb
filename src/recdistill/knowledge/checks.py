"""What an array of knowledge must look like, and what a wrong one usually is (spec 0.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.errors import KnowledgeError
from recdistill.knowledge.lists import repeated_slots, row_chunks
from recdistill.types import PAD

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

#: Dimensions and stored types of each field; another type of the same kind is cast to the first.
_LAYOUT: Final[Mapping[str, tuple[int, tuple[type[Any], ...]]]] = {
    "row_ids": (1, (np.int64,)),
    "ranking": (2, (np.int32,)),
    "ranking_distance": (2, (np.float32,)),
    "target_distance": (1, (np.float32,)),
    "target_rank": (1, (np.int32,)),
    "target_rank_unseen": (1, (np.int32,)),
    "query_embeddings": (2, (np.float32, np.float16)),
    "item_embeddings": (2, (np.float32, np.float16)),
}

#: Distances may fall by this share of the row's largest: lists are often ordered in another precision.
_SLACK: Final = 1e-4

_RANK_MATRIX: Final = (
    "the ranking holds the rank of every item, not a list of items: entry j is the rank of item j, as "
    "argsort(argsort(distance)) gives it (the variable `rank` of BIGRec's evaluate.py, to which "
    "DLLM2Rec's README points). A list is argsort(distance)[:, :n], item ids with the best first. Save "
    "distance.topk(n, largest=False), its indices as the ranking and its values as the distances, and "
    "repeat the command."
)


def check_structure(arrays: Mapping[str, Array | None], item_count: int) -> dict[str, Array]:
    """Check shapes, types and row ids, and cast to the stored types. Reads no field but the row ids.

    Parameters
    ----------
    arrays
        The fields and ``row_ids``, by name.
    item_count
        I.

    Returns
    -------
    dict
        The fields that are not None.

    Raises
    ------
    KnowledgeError
        A shape or type is wrong, or the row ids are not ascending and unique.
    """
    given = {name: _typed(name, np.asarray(array)) for name, array in arrays.items() if array is not None}
    rows = given["row_ids"]
    if len(rows) and bool((np.diff(rows) <= 0).any()):
        first = int(np.flatnonzero(np.diff(rows) <= 0)[0])
        raise KnowledgeError(
            f"row ids are not ascending and unique: {rows[first]} is followed by {rows[first + 1]}. Sort "
            "all arrays by row id: order = numpy.argsort(row_ids), then array[order] for each."
        )
    for name, array in given.items():
        expected = item_count if name == "item_embeddings" else len(rows)
        if len(array) != expected:
            what = "items in the catalogue" if name == "item_embeddings" else "row ids"
            raise KnowledgeError(
                f"{name} has {len(array):,} entries for {expected:,} {what}. Both must agree: make the "
                "knowledge anew with recdistill teach, on the dataset that you use."
            )
    _same_shape(given)
    return given


def _typed(name: str, array: Array) -> Array:
    dimensions, types = _LAYOUT[name]
    kinds = "iu" if np.issubdtype(types[0], np.integer) else "f"
    if array.ndim != dimensions or array.dtype.kind not in kinds or (dimensions == 2 and array.shape[1] == 0):
        raise KnowledgeError(
            f"{name} is an array of {array.dtype} and shape {array.shape}. It must have {dimensions} "
            f"dimension(s), none but the first empty, of {' or '.join(t.__name__ for t in types)}. Convert "
            "it with numpy.asarray."
        )
    if array.dtype in types:
        return array
    if (
        kinds == "iu"
        and len(array)
        and not np.iinfo(types[0]).min <= array.min() <= array.max() <= np.iinfo(types[0]).max
    ):
        raise KnowledgeError(
            f"{name} holds {array.max()}, which does not fit into {types[0].__name__}. Item indices and "
            "ranks lie in 0..I-1: number the items as the dataset's items.parquet does."
        )
    return array.astype(types[0])


def _same_shape(given: Mapping[str, Array]) -> None:
    ranking, distance = given.get("ranking"), given.get("ranking_distance")
    if distance is not None and (ranking is None or ranking.shape != distance.shape):
        raise KnowledgeError(
            f"ranking_distance has shape {distance.shape}, the ranking "
            f"{None if ranking is None else ranking.shape}. Each listed item has one distance: save both "
            "from one distance.topk(n, largest=False)."
        )
    queries, items = given.get("query_embeddings"), given.get("item_embeddings")
    if queries is not None and items is not None and queries.shape[1] != items.shape[1]:
        raise KnowledgeError(
            f"query embeddings have {queries.shape[1]} dimensions, item embeddings {items.shape[1]}. They "
            "are compared with each other, so both must come from one encoder: make them anew with "
            "recdistill teach."
        )


def check_contents(fields: Mapping[str, Array], item_count: int, targets: Ints | None = None) -> None:
    """Check every value of every field, in chunks. See `Knowledge.check`."""
    ranking, distance = fields.get("ranking"), fields.get("ranking_distance")
    if ranking is not None:
        _check_ids(ranking, item_count)
        if is_rank_matrix(ranking, distance, targets):
            raise KnowledgeError(_RANK_MATRIX)
        if distance is not None:
            _check_distances(ranking, distance)
    if "target_distance" in fields:
        values = fields["target_distance"]
        _refuse("target_distance", values, np.isinf(values) | (values < 0), "non-negative, NaN where unknown")
    for name in ("target_rank", "target_rank_unseen"):
        if name in fields:
            values = fields[name]
            _refuse(
                name,
                values,
                (values < PAD) | (values >= item_count),
                f"0..{item_count - 1}, -1 where unknown",
            )
    for name in ("query_embeddings", "item_embeddings"):
        if name in fields:
            for rows in row_chunks(len(fields[name]), fields[name].shape[1]):
                values = fields[name][rows]
                _refuse(
                    name, values, ~np.isfinite(values), "finite (a float16 overflows above 65504)", rows.start
                )


def _refuse(name: str, values: Array, wrong: npt.NDArray[np.bool_], allowed: str, start: int = 0) -> None:
    if wrong.any():
        where = np.argwhere(wrong)[0]
        raise KnowledgeError(
            f"{name} holds {values[tuple(where)]} in entry {start + int(where[0])}. Its values must be "
            f"{allowed}. Make the knowledge anew with recdistill teach, or correct the entry."
        )


def _check_ids(ranking: Array, item_count: int) -> None:
    for rows in row_chunks(*ranking.shape):
        lists = ranking[rows]
        wrong = (lists < PAD) | (lists >= item_count)
        if wrong.any():
            one_based = int(lists.max()) == item_count and not (lists == 0).any()
            hint = "The ids count from 1: subtract 1. " if one_based else ""
            _refuse(
                "ranking",
                lists,
                wrong,
                f"item ids 0..{item_count - 1}, or -1 for no item. {hint}",
                rows.start,
            )
        gaps = (lists[:, :-1] == PAD) & (lists[:, 1:] != PAD)
        if gaps.any():
            raise KnowledgeError(
                f"entry {rows.start + int(np.argwhere(gaps)[0, 0])} of the ranking lists an item after a "
                "-1. Short lists end in -1: move the items to the front."
            )
        repeated = repeated_slots(lists)
        if repeated.any():
            where = np.argwhere(repeated)[0]
            raise KnowledgeError(
                f"entry {rows.start + int(where[0])} of the ranking lists item {lists[tuple(where)]} "
                "twice. Each item may stand in a list once: save distance.topk(n, largest=False).indices."
            )


def _check_distances(ranking: Array, distance: Array) -> None:
    for rows in row_chunks(*ranking.shape):
        listed, values = ranking[rows] != PAD, distance[rows]
        _refuse(
            "ranking_distance",
            values,
            listed & ~(np.isfinite(values) & (values >= 0)),
            "finite and >= 0",
            rows.start,
        )
        falls = _falls(np.where(listed, values, np.inf))
        if falls.any():
            row = int(np.flatnonzero(falls)[0])
            raise KnowledgeError(
                f"the distances of entry {rows.start + row} do not grow along the list "
                f"({values[row, :5].tolist()} ...). A list has its best item, the one at the smallest "
                "distance, first: save the values of distance.topk(n, largest=False), not distance[:, :n]."
            )


def _falls(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Return ``(n,)``: rows that fall somewhere by more than the slack. Infinite values stand at the end."""
    with np.errstate(invalid="ignore"):
        steps = np.diff(values, axis=1)
        largest = np.max(np.where(np.isfinite(values), values, 0), axis=1, keepdims=True)
        return np.asarray((steps < -_SLACK * largest).any(axis=1))


def is_rank_matrix(ranking: Array, distance: Array | None, targets: Ints | None, sample: int = 4096) -> bool:
    """Tell whether ranks were saved in place of items, looking at `sample` rows spread over the array.

    Two signs, each enough. The distances fall along the row but grow in the order of the "ids": then the ids
    are the ranks of the distances. Or, where targets are known: the entry *at the position of* the row's target
    is smaller than at that of another row's target, as a rank would be, while the row does not list its own
    target more often than another's, as a list would.

    Parameters
    ----------
    ranking
        ``(N, K)``.
    distance
        ``(N, K)`` or None.
    targets
        ``(N,)`` true items, -1 where unknown, or None.
    sample
        Rows to look at.
    """
    full = np.flatnonzero(ranking[:, -1] != PAD)
    chosen = full[np.linspace(0, len(full) - 1, min(sample, len(full))).astype(np.int64)]
    if not len(chosen) or ranking.shape[1] < 3:
        return False
    lists = ranking[chosen]
    if distance is not None and _ordered_by_ids(lists, distance[chosen]):
        return True
    return targets is not None and _answers_at_target(lists, targets[chosen])


def _ordered_by_ids(lists: Array, distance: Array) -> bool:
    falling = _falls(distance)
    ordered = ~_falls(np.take_along_axis(distance, np.argsort(lists, axis=1), axis=1))
    return bool(falling.mean() > 0.5 and ordered[falling].mean() > 0.95)


def _answers_at_target(lists: Array, targets: Ints) -> bool:
    """Compare how well the two readings know each row's target with how well they know another row's.

    Another row's target is the yardstick, because popular items may well have small ids, like ranks.
    """
    inside = np.flatnonzero((targets >= 0) & (targets < lists.shape[1]))
    if len(inside) < 30:
        return False
    lists, own = lists[inside], targets[inside]
    other = np.roll(own, len(own) // 2)
    gain = _smaller_share(lists, other) - _smaller_share(lists, own)
    listed = (lists == own[:, None]).any(axis=1) * 1.0 - (lists == other[:, None]).any(axis=1)
    return _clearly_positive(gain) and not _clearly_positive(listed)


def _smaller_share(lists: Array, columns: Ints) -> npt.NDArray[np.float64]:
    """Return ``(n,)``: the share of each row's entries that are smaller than its entry in the given column."""
    chosen = np.take_along_axis(lists, columns[:, None], axis=1)
    return np.asarray((lists < chosen).mean(axis=1))


def _clearly_positive(values: npt.NDArray[np.float64]) -> bool:
    """Tell whether the mean lies more than four standard errors, and more than 0.05, above zero."""
    return bool(values.mean() > max(0.05, 4 * values.std() / np.sqrt(len(values))))
