"""A tiny dataset for tests: sequences that walk around a ring of items, so that there is something to learn."""

from __future__ import annotations

import numpy as np
import polars as pl

from recdistill.data import Catalogue, SequenceDataset

ITEMS = 40


def ring_dataset(users: int = 60, length: int = 12, *, noise: float = 0.1, seed: int = 0) -> SequenceDataset:
    """Leave-one-out rows over sequences in which item i is mostly followed by i + 1."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, length + 1, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    events = np.concatenate(
        [
            (rng.integers(ITEMS) + np.arange(n) + (rng.random(n) < noise) * rng.integers(ITEMS, size=n))
            % ITEMS
            for n in lengths
        ]
    )
    rows, sequences, splits = [], [], []
    for user, n in enumerate(lengths):
        for position in range(1, n):
            rows.append(offsets[user] + position)
            sequences.append(user)
            splits.append(2 if position == n - 1 else 1 if position == n - 2 else 0)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{k:02d}" for k in range(ITEMS)],
            "title": [f"Saga {k // 8} part {k % 8}" for k in range(ITEMS)],
        }
    )
    return SequenceDataset(
        catalogue=Catalogue(frame),
        events=events.astype(np.int64),
        offsets=offsets.astype(np.int64),
        row_ids=np.arange(len(rows), dtype=np.int64),
        row_events=np.array(rows, dtype=np.int64),
        row_sequences=np.array(sequences, dtype=np.int64),
        row_splits=np.array(splits, dtype=np.int8),
        provenance={"name": "ring", "split": {"kind": "leave-one-out"}},
    )
