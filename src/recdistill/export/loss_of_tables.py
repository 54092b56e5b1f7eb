"""What a smaller table costs: the packed recommender against the one it was packed from, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recdistill.data import SequenceDataset
from recdistill.evaluate import Comparison
from recdistill.evaluate.ranks import top_items
from recdistill.export.recommender import Recommender
from recdistill.types import Split

_METRICS = ("hr@10", "hr@20", "ndcg@10", "ndcg@20")
_OVERLAP_ROWS = 1000


@dataclass(frozen=True)
class TableLoss:
    """Packed against unpacked on one split.

    Attributes
    ----------
    split, rows, filter_seen
        What was asked.
    comparisons
        One a metric, with the paired difference and its interval; negative: the packed one is worse.
    overlap
        Mean share of the 20 best items that both name, on at most 1,000 of the rows.
    """

    split: Split
    rows: int
    filter_seen: bool
    comparisons: tuple[Comparison, ...]
    overlap: float


def measure_table(
    whole: Recommender, packed: Recommender, dataset: SequenceDataset, split: Split, filter_seen: bool
) -> TableLoss:
    """Rank every row of a split with both, and compare.

    Raises
    ------
    FingerprintError
        They were trained on another dataset.
    """
    both = [
        one.evaluate(dataset, split, filter_seen=filter_seen, name=name)
        for one, name in ((packed, "packed"), (whole, "float32"))
    ]
    comparisons = tuple(both[0].compare(both[1], metric, permutations=2000) for metric in _METRICS)
    rows = dataset.rows(split)
    some = rows[np.unique(np.linspace(0, len(rows) - 1, _OVERLAP_ROWS).astype(np.int64))]
    k = min(20, dataset.item_count)
    lists = [
        top_items(one.scorer(), dataset, some, k, length=one.length, filter_seen=filter_seen)
        for one in (packed, whole)
    ]
    same = (lists[0][:, :, None] == lists[1][:, None, :]).any(2).mean()
    return TableLoss(split, len(rows), filter_seen, comparisons, float(same))
