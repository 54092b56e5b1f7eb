import numpy as np
import polars as pl
import pytest

from recdistill.data.catalogue import Catalogue
from recdistill.data.sequences import SequenceDataset


def build_dataset(sequences, titles=None, item_count=None, prefix=False):
    """Leave-one-out rows over lists of items: the last target is test, the one before it valid, the rest train."""
    item_count = item_count or 1 + max(max(s) for s in sequences)
    titles = titles or [f"title {i}" for i in range(item_count)]
    frame = pl.DataFrame({"item_id": [f"i{i}" for i in range(item_count)], "title": titles})
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    events, owners, splits = [], [], []
    for index, sequence in enumerate(sequences):
        for position in range(1, len(sequence)):
            events.append(offsets[index] + position)
            owners.append(index)
            left = len(sequence) - 1 - position
            code = 2 if left == 0 else 1 if left == 1 else 0
            splits.append(3 if prefix and code == 0 and position == 1 else code)
    return SequenceDataset(
        catalogue=Catalogue(frame),
        events=np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences]),
        offsets=offsets,
        row_ids=np.arange(len(events), dtype=np.int64) * 3 + 7,
        row_events=np.array(events, dtype=np.int64),
        row_sequences=np.array(owners, dtype=np.int64),
        row_splits=np.array(splits, dtype=np.int8),
        provenance={"name": "toy"},
    )


@pytest.fixture(scope="session")
def make_dataset():
    return build_dataset


@pytest.fixture(scope="session")
def walks():
    """40 users walk a ring of 24 items with noise; titles name the neighbourhood; one title is missing."""
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(40):
        here, walk = int(rng.integers(24)), []
        for _ in range(int(rng.integers(5, 12))):
            here = (here + int(rng.integers(1, 3))) % 24 if rng.random() < 0.8 else int(rng.integers(24))
            walk.append(here)
        sequences.append(walk)
    titles = [f"part {i} of saga {i // 4} colour {i // 2}" for i in range(23)] + [""]
    return build_dataset(sequences, titles, 24, prefix=True)
