"""Table 4 of the paper for any dataset, and what else one should know before training on it."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import PREFIX, SPLIT_NAMES, SequenceDataset

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Published(NamedTuple):
    """One row of Table 4 (Cui et al., Distillation Matters, RecSys 2024).

    Attributes
    ----------
    name
        As in the paper.
    users, items, interactions
        As printed. MovieLens' interactions are those of the sampled windows: 120,000 × 11.
    density
        Interactions / (users × items), between 0 and 1.
    """

    name: str
    users: int
    items: int
    interactions: int
    density: float


PUBLISHED: Final[dict[str, Published]] = {
    "games": Published("Games", 55_223, 17_408, 497_577, 0.0005176),
    "movielens-10m": Published("MovieLens-10M", 69_878, 10_681, 1_320_000, 0.001769),
    "toys": Published("Toys", 19_412, 11_924, 167_597, 0.0007241),
}
_WORDS: Final = {"games": r"\bgames?\b", "movielens-10m": r"\b(movielens|ml)-?10m\b", "toys": r"\btoys?\b"}


def published_row(dataset: SequenceDataset) -> Published | None:
    """Return the paper's row if the dataset's name or category says that it is one of the three."""
    source = dataset.provenance.get("source", {})
    told = f"{dataset.name} {source.get('category', '')} {source.get('format', '')}"
    text = told.lower().replace("_", " ")
    return next((PUBLISHED[key] for key, pattern in _WORDS.items() if re.search(pattern, text)), None)


def describe(dataset: SequenceDataset) -> dict[str, Any]:
    """Return the figures of a dataset.

    Returns
    -------
    dict
        ``name``, ``users``, ``sequences``, ``items``, ``interactions``, ``density`` (0..1), None where the
        source does not tell; ``splits``: for each split ``rows`` and, where it has rows, ``history_mean``,
        ``history_median``, ``history_max`` (events before the target), ``unseen_targets`` (share of targets
        that occur nowhere in training) and ``repeated_targets`` (share that their own history holds);
        ``titles``: see `Catalogue.title_report`.
    """
    counts = dataset.provenance.get("counts", {})
    users = counts.get("users")
    interactions = counts.get("interactions", len(dataset.events))
    seen = np.zeros(dataset.item_count, dtype=bool)
    seen[dataset.events[dataset.train_event_mask]] = True
    return {
        "name": dataset.name,
        "users": users,
        "sequences": len(dataset.offsets) - 1,
        "items": dataset.item_count,
        "interactions": interactions,
        "density": interactions / (users * dataset.item_count) if users and interactions else None,
        "splits": {name: _split(dataset, name, seen) for name in SPLIT_NAMES},
        "titles": dataset.catalogue.title_report(),
    }


def _split(dataset: SequenceDataset, name: str, seen: Bools) -> dict[str, Any]:
    rows = np.flatnonzero(dataset.row_splits == SPLIT_NAMES.index(name))
    if not len(rows) or name == PREFIX:
        return {"rows": len(rows)}
    lengths = dataset.history_lengths(rows)
    targets = dataset.targets(rows)
    return {
        "rows": len(rows),
        "history_mean": float(lengths.mean()),
        "history_median": float(np.median(lengths)),
        "history_max": int(lengths.max()),
        "unseen_targets": float((~seen[targets]).mean()),
        "repeated_targets": float(_repeated(dataset, rows).mean()),
    }


def _repeated(dataset: SequenceDataset, rows: Ints) -> Bools:
    """Return ``(n,)``: whether the target occurred before in its sequence, without unfolding the "
    "histories."""
    sequences = np.repeat(np.arange(len(dataset.offsets) - 1), np.diff(dataset.offsets))
    keys = sequences * dataset.item_count + dataset.events
    _, first = np.unique(keys, return_index=True)  # the first event of each (sequence, item)
    repeated = np.ones(len(keys), dtype=bool)
    repeated[first] = False
    answer: Bools = repeated[dataset.row_events[rows]]
    return answer
