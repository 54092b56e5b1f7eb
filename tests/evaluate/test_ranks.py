from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError, DataError
from recdistill.evaluate import ranks as module
from recdistill.evaluate import target_ranks, top_items
from recdistill.types import PAD
from references import metrics as naive
from shop import ITEMS, ring_dataset

DATASET = ring_dataset(users=25, seed=3)
ROWS = DATASET.rows("test")


def table_scorer(table):
    """Scores that depend on the last item only; the number of rows is whatever comes."""

    def score(history):
        last = history[np.arange(len(history)), (history != PAD).sum(1) - 1]
        return table[last]

    return score


def seen_items(row):
    _, items = DATASET.seen(np.array([row]))
    return set(items.tolist())


def check_against_sorting(table, **options):
    pair = target_ranks(table_scorer(table), DATASET, ROWS, length=5, **options)
    for n, row in enumerate(ROWS):
        history = DATASET.histories(np.array([row]), 5)
        scores = np.asarray(table_scorer(table)(history))[0].tolist()
        target = int(DATASET.targets(np.array([row]))[0])
        assert pair.kept[n] == naive.rank(scores, target)
        assert pair.unseen[n] == naive.rank(scores, target, seen_items(row))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1000]), st.sampled_from([1, 3, 7, 512]))
def test_ranks_agree_with_sorting_also_with_ties(seed, levels, batch_size):
    table = np.random.default_rng(seed).integers(0, levels, (ITEMS, ITEMS)).astype(np.float32)
    check_against_sorting(table, batch_size=batch_size)


def test_history_with_repeated_items_and_the_target_among_them():
    # The ring walks in circles, so that some histories hold an item twice, or the target itself.
    repeated = [len(seen_items(row)) < DATASET.history_lengths(np.array([row]))[0] for row in ROWS]
    holds_target = [int(DATASET.targets(np.array([row]))[0]) in seen_items(row) for row in ROWS]
    assert any(repeated)
    assert any(holds_target)
    check_against_sorting(np.random.default_rng(0).standard_normal((ITEMS, ITEMS)).astype(np.float32))


def test_constant_scores_give_the_worst_rank():
    pair = target_ranks(lambda h: np.zeros((len(h), ITEMS), np.float32), DATASET, ROWS, length=3)
    assert (pair.kept == ITEMS - 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_torch_and_numpy_scores_of_any_type_agree(dtype):
    table = torch.randint(-50, 50, (ITEMS, ITEMS), generator=torch.Generator().manual_seed(0)).to(dtype)
    plain = table.to(torch.float32).numpy()
    expected = target_ranks(table_scorer(plain), DATASET, ROWS, length=4)
    found = target_ranks(table_scorer(table), DATASET, ROWS, length=4)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_array_equal(found.unseen, expected.unseen)


def test_scores_with_a_gradient_are_accepted():
    table = torch.randn(ITEMS, ITEMS, requires_grad=True)
    found = target_ranks(table_scorer(table), DATASET, ROWS, length=4)
    expected = target_ranks(table_scorer(table.detach().numpy()), DATASET, ROWS, length=4)
    np.testing.assert_array_equal(found.kept, expected.kept)


def test_counting_on_another_device_agrees():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (12, 30)).astype(np.float32)
    targets = rng.integers(0, 30, 12)
    owners, items = np.divmod(rng.choice(12 * 30, 60, replace=False), 30)
    host = module._counts_numpy(scores, targets, owners, items, module._Flags(30))
    other = module._counts_torch(torch.from_numpy(scores), targets, owners, items)
    np.testing.assert_array_equal(host[0], other[0])
    np.testing.assert_array_equal(host[1], other[1])


def test_wide_catalogues_count_without_overflow():
    # 300,000 flags of one in a row: a byte of the summed words must not run over.
    width = 300_000
    scores = np.zeros((2, width), np.float32)
    scores[1, :7] = 1
    none = np.empty(0, np.int64)
    above, _ = module._counts_numpy(scores, np.array([5, 5]), none, none, module._Flags(width))
    assert above.tolist() == [width, 7]


def test_a_shared_read_only_table_works_and_is_not_changed():
    popularity = np.arange(ITEMS, dtype=np.float32)

    def scorer(history):
        return np.broadcast_to(popularity, (len(history), ITEMS))

    pair = target_ranks(scorer, DATASET, ROWS, length=2)
    np.testing.assert_array_equal(pair.kept, ITEMS - 1 - DATASET.targets(ROWS))
    top = top_items(scorer, DATASET, ROWS, 3, length=2, filter_seen=True)
    assert popularity.tolist() == list(range(ITEMS))
    assert top.shape == (len(ROWS), 3)


def test_top_items_are_the_best_of_the_allowed():
    table = np.random.default_rng(2).permuted(np.tile(np.arange(ITEMS, dtype=np.float32), (ITEMS, 1)), axis=1)
    for filter_seen in (False, True):
        top = top_items(
            table_scorer(table), DATASET, ROWS, 6, length=5, filter_seen=filter_seen, batch_size=7
        )
        for n, row in enumerate(ROWS):
            scores = table_scorer(table)(DATASET.histories(np.array([row]), 5))[0]
            banned = seen_items(row) if filter_seen else set()
            best = [item for item in np.argsort(-scores).tolist() if item not in banned][:6]
            assert top[n].tolist() == best


def test_rank_and_list_agree():
    table = np.random.default_rng(5).standard_normal((ITEMS, ITEMS)).astype(np.float32)
    ranks = target_ranks(table_scorer(table), DATASET, ROWS, length=5).of(filter_seen=False)
    top = top_items(table_scorer(table), DATASET, ROWS, 10, length=5, filter_seen=False)
    in_list = (top == DATASET.targets(ROWS)[:, None]).any(1)
    np.testing.assert_array_equal(in_list, ranks < 10)


def test_lists_are_padded_where_items_run_out():
    top = top_items(lambda h: np.ones((len(h), ITEMS)), DATASET, ROWS, ITEMS, length=5, filter_seen=True)
    for n, row in enumerate(ROWS):
        assert (top[n] == PAD).sum() == len(seen_items(row))
        assert not set(top[n].tolist()) & seen_items(row)


def test_nan_names_the_row():
    bad = int(ROWS[4])

    def scorer(history):
        scores = np.zeros((len(history), ITEMS), np.float32)
        scores[(history == DATASET.histories(np.array([bad]), 12)).all(1), 3] = np.nan
        return scores

    for source in (scorer, lambda h: torch.from_numpy(scorer(h))):
        with pytest.raises(DataError, match=f"row {DATASET.row_ids[bad]} contain NaN"):
            target_ranks(source, DATASET, ROWS, length=12)


def test_infinities_are_scores():
    table = np.full((ITEMS, ITEMS), -np.inf, np.float32)
    table[:, 0] = np.inf
    pair = target_ranks(table_scorer(table), DATASET, ROWS, length=3)
    expected = np.where(DATASET.targets(ROWS) == 0, 0, ITEMS - 1)
    np.testing.assert_array_equal(pair.kept, expected)


def test_wrong_shapes_and_options_are_explained():
    with pytest.raises(ConfigError, match="rows, items"):
        target_ranks(lambda h: np.zeros((len(h), ITEMS + 1)), DATASET, ROWS, length=3)
    with pytest.raises(ConfigError, match="at least 1"):
        target_ranks(table_scorer(np.zeros((ITEMS, ITEMS))), DATASET, ROWS, length=0)
    with pytest.raises(ConfigError, match="number of items"):
        top_items(table_scorer(np.zeros((ITEMS, ITEMS))), DATASET, ROWS, 41, length=3, filter_seen=False)


def test_large_catalogues_are_scored_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 3 * ITEMS)
    monkeypatch.setattr(module, "_ROWS_AT_LEAST", 2)
    asked = []

    def scorer(history):
        asked.append(len(history))
        return np.zeros((len(history), ITEMS))

    target_ranks(scorer, DATASET, ROWS, length=3)
    assert max(asked) == 3
    assert sum(asked) == len(ROWS)


def test_no_rows_give_no_ranks():
    none = np.empty(0, np.int64)
    pair = target_ranks(table_scorer(np.zeros((ITEMS, ITEMS))), DATASET, none, length=3)
    assert len(pair.kept) == len(pair.unseen) == 0
