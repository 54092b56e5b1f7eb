from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import negatives, sample_negatives, shared_negatives
from recdistill.errors import DataError
from recdistill.types import PAD


def batch(
    rng: np.random.Generator, items: int, rows: int = 7, length: int = 6, supervised: int = 20
) -> tuple[np.ndarray, ...]:
    history = rng.integers(0, items, size=(rows, length))
    history[np.arange(length) >= rng.integers(1, length + 1, rows)[:, None]] = PAD
    return rng.integers(0, items, supervised), history, rng.integers(0, rows, supervised)


@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 8), st.booleans())
@settings(deadline=None)
def test_never_the_target_nor_a_seen_item(seed: int, items: int, n: int, large: bool) -> None:
    rng = np.random.default_rng(seed)
    targets, history, owner = batch(rng, items)
    with pytest.MonkeyPatch.context() as patch:
        if large:  # the path of many rows
            patch.setattr(negatives, "_MOST_COMPARISONS", 0)
        drawn = sample_negatives(rng, targets, history, owner, n, items)
    assert drawn.shape == (20, n)
    assert drawn.min() >= 0
    assert drawn.max() < items
    for row in range(20):
        assert targets[row] not in drawn[row]
        excluded = {*history[owner[row]].tolist(), int(targets[row])} - {PAD}
        if len(excluded) < items:
            assert excluded.isdisjoint(drawn[row].tolist())


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_uniform_over_the_allowed_items(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "_MOST_COMPARISONS", limit)
    history = np.array([[0, 1, PAD]])
    owner = np.zeros(20_000, dtype=np.int64)
    drawn = sample_negatives(np.random.default_rng(0), owner + 2, history, owner, 1, 6)
    counts = np.bincount(drawn.ravel(), minlength=6)
    assert counts[:3].tolist() == [0, 0, 0]
    assert np.abs(counts[3:] / 20_000 - 1 / 3).max() < 0.02


def test_one_allowed_item_is_found() -> None:
    history = np.arange(999)[None, :]
    owner = np.zeros(5, dtype=np.int64)
    assert (
        sample_negatives(np.random.default_rng(0), owner + 7, history, owner, 2, 1000).tolist()
        == [[999, 999]] * 5
    )


def test_the_same_seed_draws_the_same() -> None:
    targets, history, owner = batch(np.random.default_rng(3), 12)
    draws = [sample_negatives(np.random.default_rng(9), targets, history, owner, 3, 12) for _ in range(2)]
    assert np.array_equal(*draws)


def test_too_few_items() -> None:
    with pytest.raises(DataError, match="at least 2 items"):
        sample_negatives(
            np.random.default_rng(0), np.zeros(1, int), np.zeros((1, 1), int), np.zeros(1, int), 1, 1
        )


def test_shared_negatives_follow_the_weights() -> None:
    rng = np.random.default_rng(0)
    drawn = shared_negatives(rng, 40_000, item_count=4, popularity=[0, 1, 3, 0])
    assert np.abs(np.bincount(drawn, minlength=4) / 40_000 - [0, 0.25, 0.75, 0]).max() < 0.01
    assert np.abs(np.bincount(shared_negatives(rng, 40_000, item_count=4)) / 40_000 - 0.25).max() < 0.01
    for wrong in ([1, 2], [0, 0, 0, 0], [1, -1, 1, 1]):
        with pytest.raises(DataError, match="popularity has shape"):
            shared_negatives(rng, 2, item_count=4, popularity=wrong)
