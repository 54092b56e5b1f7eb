"""Made data of any size, for measuring time and memory only: it says nothing about accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl
import torch

from recdistill.data.catalogue import Catalogue
from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.knowledge import Knowledge
from recdistill.types import PAD

Ints = np.ndarray


def catalogue(item_count: int) -> Catalogue:
    """Return I items with made titles."""
    names = [f"{k:07d}" for k in range(item_count)]
    return Catalogue(pl.DataFrame({"item_id": names, "title": [f"Item {name}" for name in names]}))


def popular_items(generator: np.random.Generator, item_count: int, size: int) -> Ints:
    """Draw items with a long tail: probability of rank r proportional to 1 / (r + 10)."""
    weights = 1.0 / (np.arange(item_count) + 10.0)
    edges = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(edges, generator.random(size)), item_count - 1).astype(np.int64)


def windows(
    rows: int, item_count: int, *, length: int = 10, seed: int = 0, split: int = 0, validation: int = 0
) -> SequenceDataset:
    """Return `rows` sequences of 3 .. length items, each with one row that asks for the item after them.

    `split` is the code of their split (0 train, 1 valid, 2 test); the last `validation` of them are valid.
    """
    generator = np.random.default_rng(seed)
    counts = generator.integers(3, length + 1, rows) + 1  # with the target
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    splits = np.full(rows, split, dtype=np.int8)
    splits[rows - validation :] = 1
    return SequenceDataset(
        catalogue=catalogue(item_count),
        events=popular_items(generator, item_count, int(offsets[-1])),
        offsets=offsets,
        row_ids=np.arange(rows, dtype=np.int64),
        row_events=offsets[1:] - 1,
        row_sequences=np.arange(rows, dtype=np.int64),
        row_splits=splits,
        provenance={"name": f"synthetic windows, {rows} rows, {item_count} items"},
    )


def users(user_count: int, item_count: int, *, mean: float, longest: int, seed: int = 0) -> SequenceDataset:
    """Return users with long-tailed history lengths; each event but the first is a training row.

    With 6,040 users, 3,416 items and mean 165 the shapes are those of MovieLens-1M.
    """
    generator = np.random.default_rng(seed)
    counts = np.clip(generator.lognormal(np.log(mean) - 0.45, 0.95, user_count), 18, longest).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return dataset_of(popular_items(generator, item_count, int(offsets[-1])), offsets, item_count)


def dataset_of(events: Ints, offsets: Ints, item_count: int) -> SequenceDataset:
    """Return sequences in which each event but the first is a training row."""
    first = np.zeros(len(events), dtype=bool)
    first[offsets[:-1]] = True
    targets = np.flatnonzero(~first)
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return SequenceDataset(
        catalogue=catalogue(item_count),
        events=events,
        offsets=offsets,
        row_ids=np.arange(len(targets), dtype=np.int64),
        row_events=targets,
        row_sequences=owners[targets],
        row_splits=np.zeros(len(targets), dtype=np.int8),
        provenance={"name": f"synthetic users, {len(offsets) - 1} users, {item_count} items"},
    )


def teacher(dataset: SequenceDataset, *, size: int = 4096, listed: int = 10, seed: int = 1) -> Knowledge:
    """Return a made teacher: random vectors, and lists of distinct items with growing distances."""
    generator = np.random.default_rng(seed)
    rows, items = len(dataset.row_ids), dataset.item_count
    start = generator.integers(0, items, (rows, 1))
    stride = 1 + generator.integers(0, max(1, items // listed - 1), (rows, 1))
    ranking = (start + stride * np.arange(listed)) % items  # distinct: stride * listed stays below I
    distance = np.cumsum(generator.random((rows, listed), dtype=np.float32), axis=1)
    return Knowledge(
        row_ids=dataset.row_ids,
        item_count=items,
        ranking=ranking.astype(np.int32),
        ranking_distance=distance.astype(np.float32),
        target_distance=generator.random(rows, dtype=np.float32) * 5,
        item_embeddings=generator.standard_normal((items, size), dtype=np.float32),
        manifest={"teacher": "synthetic", "metric": "l2", "dataset_fingerprint": dataset.fingerprint},
    )


@dataclass(frozen=True)
class AuthorsTables:
    """The same rows as the authors' program holds them."""

    frame: pd.DataFrame
    ranking: torch.Tensor
    distance: torch.Tensor


def authors_tables(dataset: SequenceDataset, knowledge: Knowledge, length: int) -> AuthorsTables:
    """Return frame and teacher lists of the dataset's training rows; pads become id I."""
    rows = dataset.rows("train")
    histories = dataset.histories(rows, length)  # (n, L)
    histories = np.where(histories == PAD, dataset.item_count, histories)
    frame = pd.DataFrame(
        {
            "seq": histories.tolist(),
            "len_seq": np.minimum(dataset.history_lengths(rows), length),
            "next": dataset.targets(rows),
        }
    )
    assert knowledge.ranking is not None
    assert knowledge.ranking_distance is not None
    return AuthorsTables(
        frame, torch.from_numpy(knowledge.ranking).long(), torch.from_numpy(knowledge.ranking_distance)
    )
