import numpy as np
import polars as pl
import pytest

from recdistill.data.catalogue import Catalogue
from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge, provenance

ITEMS, WIDTH = 30, 6


def ring(users=40, items=ITEMS, titles=None, seed=0, name="ring"):
    """Users walk around a ring of items; the last target of each is test, the one before it valid."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 12, users)
    walks = [(rng.integers(items) + np.cumsum(rng.integers(1, 3, n))) % items for n in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = [(u, p) for u, n in enumerate(lengths) for p in range(1, n)]
    frame = pl.DataFrame(
        {
            "item_id": [f"i{k:02d}" for k in range(items)],
            "title": titles or [f"Saga {k}" for k in range(items)],
        }
    )
    return SequenceDataset(
        catalogue=Catalogue(frame),
        events=np.concatenate(walks).astype(np.int64),
        offsets=offsets.astype(np.int64),
        row_ids=np.arange(len(rows), dtype=np.int64) * 3 + 5,  # ids are no positions
        row_events=np.array([offsets[u] + p for u, p in rows], dtype=np.int64),
        row_sequences=np.array([u for u, _ in rows], dtype=np.int64),
        row_splits=np.array(
            [2 if p == lengths[u] - 1 else 1 if p == lengths[u] - 2 else 0 for u, p in rows], dtype=np.int8
        ),
        provenance={"name": name},
    )


def teach(dataset, rows=None, k=WIDTH, noise=0.5, seed=1, vectors=True):
    """Knowledge of a teacher that sees the answer through noise: distances of random vectors, all fields."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(dataset.row_ids)) if rows is None else rows
    table = rng.normal(size=(dataset.item_count, 8)).astype(np.float32)
    targets = dataset.targets(rows)
    queries = (table[targets] + noise * rng.normal(size=(len(rows), 8))).astype(np.float32)
    distance = ((queries[:, None] - table) ** 2).sum(-1)  # (n, I)
    order = np.argsort(distance, axis=1, kind="stable")
    at_target = distance[np.arange(len(rows)), targets]
    above = distance <= at_target[:, None]
    owners, seen = dataset.seen(rows)
    unseen = above.copy()
    unseen[owners, seen] = False
    unseen[np.arange(len(rows)), targets] = True
    return Knowledge(
        row_ids=dataset.row_ids[rows],
        item_count=dataset.item_count,
        ranking=order[:, :k].astype(np.int32),
        ranking_distance=np.take_along_axis(distance, order[:, :k], axis=1),
        target_distance=at_target,
        target_rank=(above.sum(1) - 1).astype(np.int32),
        target_rank_unseen=(unseen.sum(1) - 1).astype(np.int32),
        query_embeddings=queries if vectors else None,
        item_embeddings=table if vectors else None,
        manifest={"teacher": "oracle", "metric": "squared_l2", **provenance(dataset)},
    )


@pytest.fixture(scope="session")
def dataset():
    return ring()


@pytest.fixture(scope="session")
def knowledge(dataset):
    return teach(dataset)


@pytest.fixture(scope="session")
def make_ring():
    return ring


@pytest.fixture(scope="session")
def make_knowledge():
    return teach
