"""Choosing the weights of the graph and text score on validation rows."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.teachers import base
from recdistill.teachers.graph.scorer import GraphOptions, GraphScorer

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: What tuning tries, one option after the other, each starting from the best so far.
GRID: dict[str, tuple[float, ...]] = {
    "repeat_weight": (1.0, 0.0),
    "text_weight": (0.0, 0.1, 0.25, 0.5, 1.0),
    "two_hop": (0.0, 0.3, 0.6, 1.0),
    "decay": (0.4, 0.6, 0.8),
    "backward": (0.0, 0.35, 0.7, 1.0),
}


def tune(
    dataset: SequenceDataset,
    text: Floats | None = None,
    start: GraphOptions | None = None,
    *,
    grid: dict[str, tuple[float, ...]] | None = None,
    length: int = 50,
    max_rows: int = 4096,
) -> GraphOptions:
    """Choose the weights on validation rows: one pass over the options, best NDCG@20 with seen items kept.

    Each option is tried at the grid's values while the others stay at the best so far.

    Parameters
    ----------
    dataset
        Its validation rows decide; without any, `start` is returned.
    text
        ``(I, D)`` or None; without text `text_weight` is not tried.
    start
        Where the search begins, and what stays for options that are not in the grid.
    grid
        Values to try by option; `GRID` if None.
    length
        How much of a history the scorer gets.
    max_rows
        At most so many validation rows, evenly spread.
    """
    best = start or GraphOptions()
    rows = base.some_rows(dataset.rows("valid"), max_rows)
    if not len(rows):
        return best
    scorer = GraphScorer(dataset, text, best)
    reached = _quality(scorer, rows, length)
    for name, values in (GRID if grid is None else grid).items():
        if name == "text_weight" and text is None:
            continue
        centre = getattr(best, name)
        for value in values:
            if value == centre:
                continue
            trial = GraphOptions(**{**asdict(best), name: value})
            same_graph = name not in ("max_gap", "backward")
            candidate = GraphScorer(dataset, text, trial, scorer.graph if same_graph else None)
            if (quality := _quality(candidate, rows, length)) > reached:
                best, reached, scorer = trial, quality, candidate
    return best


def _quality(scorer: GraphScorer, rows: Ints, length: int) -> float:
    return base.ndcg(base.ranks_of_rows(scorer.score_rows, scorer.dataset, rows, length=length)[0])
