import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.teachers import base


def random_scorer(dataset, seed=0):
    table = torch.from_numpy(
        np.random.default_rng(seed).normal(size=(dataset.item_count, dataset.item_count))
    )
    return base.plain(lambda history: table.float()[history[:, 0]])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_ranks_count_ties_against_the_target_and_drop_seen_items(data):
    items = data.draw(st.integers(2, 8))
    scores = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=items, max_size=items)), dtype=np.float32
    )
    target = data.draw(st.integers(0, items - 1))
    seen = data.draw(st.lists(st.integers(0, items - 1), max_size=12))
    owners = np.zeros(len(seen), dtype=np.int64)
    ranks = base.target_ranks_of(
        torch.from_numpy(scores[None]), torch.tensor([target]), (owners, np.array(seen, dtype=np.int64))
    )
    others = [i for i in range(items) if i != target]
    assert ranks[0, 0] == sum(scores[i] >= scores[target] for i in others)
    assert ranks[1, 0] == sum(scores[i] >= scores[target] for i in others if i not in seen)


def test_equal_scores_are_listed_by_item():
    best, items = base.ordered_topk(torch.tensor([[1.0, 3.0, 1.0, 3.0, 2.0]]), 5)
    assert items.tolist() == [[1, 3, 4, 0, 2]]
    assert best.tolist() == [[3.0, 3.0, 2.0, 1.0, 1.0]]


def test_knowledge_is_what_the_scores_say(walks):
    rows = base.rows_to_teach(walks)
    scorer, tau = random_scorer(walks), 0.5
    known = base.knowledge_from_scorer(scorer, walks, rows, length=3, top_k=5, temperature=tau, batch_size=7)
    scores = scorer(rows, walks.histories(rows, 3)).numpy().astype(np.float64) / tau
    loss = np.log(np.exp(scores).sum(1, keepdims=True)) - scores  # (N, I)
    targets = walks.targets(rows)
    np.testing.assert_array_equal(known.ranking, np.argsort(loss, axis=1)[:, :5])
    np.testing.assert_allclose(known.ranking_distance, np.sort(loss, axis=1)[:, :5], atol=1e-5)
    np.testing.assert_allclose(known.target_distance, loss[np.arange(len(rows)), targets], atol=1e-5)
    np.testing.assert_array_equal(known.row_ids, walks.row_ids[rows])
    for n, row in enumerate(rows):
        start = walks.offsets[walks.row_sequences[row]]
        seen = set(walks.events[start : walks.row_events[row]].tolist()) - {targets[n]}
        above = scores[n] >= scores[n, targets[n]]
        assert known.target_rank[n] == above.sum() - 1
        assert known.target_rank_unseen[n] == sum(above[i] for i in range(24) if i not in seen) - 1
    known.check(targets)


def test_lists_are_never_longer_than_the_catalogue(walks):
    rows = walks.rows("test")
    known = base.knowledge_from_scorer(random_scorer(walks), walks, rows, length=3, top_k=100)
    assert known.ranking.shape == (len(rows), 24)
    assert known.manifest["dataset_fingerprint"] == walks.fingerprint


def test_rows_to_teach_takes_prefixes_with_training_rows_only(walks):
    train, prefixed = (
        base.rows_to_teach(walks, ["train"], prefixes=False),
        base.rows_to_teach(walks, ["train"]),
    )
    assert set(train) < set(prefixed)
    assert (np.diff(prefixed) > 0).all()
    np.testing.assert_array_equal(base.rows_to_teach(walks, ["valid"]), walks.rows("valid"))


@pytest.mark.parametrize("options", [{"top_k": 0}, {"temperature": 0.0}])
def test_values_out_of_range_are_refused(walks, options):
    with pytest.raises(ConfigError, match="Allowed"):
        base.knowledge_from_scorer(random_scorer(walks), walks, walks.rows("test"), length=3, **options)


def test_no_rows_to_teach_is_refused(walks):
    with pytest.raises(ConfigError, match="no row"):
        base.rows_to_teach(walks, [])


def test_ndcg_by_hand():
    assert base.ndcg(np.array([0, 1, 25])) == pytest.approx((1 + 1 / np.log2(3)) / 3)
    assert base.ndcg(np.array([], dtype=int)) == 0.0


def test_best_temperature_is_the_likeliest(walks):
    rows, scorer = walks.rows("valid"), random_scorer(walks)
    scores = scorer(rows, walks.histories(rows, 3)).double()
    chosen = torch.from_numpy(walks.targets(rows))
    grid = (0.1, 1.0, 10.0)
    losses = [torch.nn.functional.cross_entropy(scores / tau, chosen).item() for tau in grid]
    found = base.best_temperature(scorer, walks, rows, length=3, grid=grid)
    assert found == grid[int(np.argmin(losses))]


def test_some_rows_are_spread_and_unique():
    rows = np.arange(100)
    few = base.some_rows(rows, 7)
    assert len(np.unique(few)) == 7
    assert few[0] == 0
    assert few[-1] == 99
    assert base.some_rows(rows, 100) is rows
