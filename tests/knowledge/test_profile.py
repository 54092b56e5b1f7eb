import numpy as np
import pytest

from recdistill.knowledge.profile import (
    QUANTILES,
    authors_weights,
    profile_distances,
    profile_lists,
    top_lists,
)


def test_the_authors_confidence_collapses_as_the_specification_measured():
    """Spec 4.3-4: d = [30, 35, 36] gives [.333335, .333332, .333332]; d = [.01, 22, 23] is one-hot."""
    assert authors_weights(np.array([[30, 35, 36]], np.float32)) == (1, 0)
    assert authors_weights(np.array([[0.01, 22, 23]], np.float32)) == (0, 1)
    assert authors_weights(np.array([[0.2, 0.9, 1.0]], np.float32)) == (0, 0)
    both = np.array([[30, 35, np.nan], [0.2, 0.9, 1.0], [5, np.nan, np.nan]], np.float32)
    assert authors_weights(both) == (0.5, 0)
    assert authors_weights(np.full((2, 3), np.nan, np.float32)) == (None, None)


def test_distances():
    distance = np.array([[1, 2, np.nan], [3, 4, 5]], np.float32)
    found = profile_distances(distance, np.array([40, np.nan], np.float32))
    assert found.quantiles == pytest.approx(np.quantile([1, 2, 3, 4, 5], QUANTILES))
    assert found.target_quantiles == (40,) * len(QUANTILES)
    assert found.vanishing_targets == 1
    assert found.order_correlation is None
    empty = profile_distances(None, None)
    assert (empty.quantiles, empty.uniform_rows, empty.vanishing_targets) == ((), None, None)


def test_order_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    nearest = rng.random(200).astype(np.float32)
    ranks = (nearest * 40 + 10 * rng.normal(size=200)).clip(0).astype(int)
    found = profile_distances(nearest[:, None], None, ranks, k=20).order_correlation
    assert found == pytest.approx(spearmanr(-nearest, ranks < 20).statistic)
    assert found > 0.3
    assert profile_distances(np.ones((3, 1), np.float32), None, np.arange(3)).order_correlation is None


def test_lists(make_ring):
    dataset = make_ring(titles=["same title"] * 3 + [f"title {k}" for k in range(27)])
    rows = dataset.rows("test")[:4]
    top = np.array([[0, 1, 2, 9], [0, 1, 5, -1], [7, 8, 9, 10], [7, 8, 9, 10]])
    found = profile_lists(top, dataset, rows)
    assert (found.rows, found.k, found.catalogue) == (4, 4, 30)
    assert found.filled == 15 / 16
    assert found.distinct_items == 8
    assert found.distinct_share == 8 / 30
    assert found.duplicate_titles == pytest.approx((2 + 1) / 15)
    listed = top[top >= 0]
    assert found.mean_popularity == pytest.approx(dataset.popularity[listed].mean())
    head = np.argsort(-dataset.popularity, kind="stable")[:3]
    assert found.head_share == pytest.approx(np.isin(listed, head).mean())
    histories = [set(dataset.histories(rows[i : i + 1], 99)[0].tolist()) for i in range(4)]
    repeats = sum(item in histories[i] for i in range(4) for item in top[i].tolist() if item >= 0)
    assert found.history_share == pytest.approx(repeats / 15)


def test_top_lists_without_the_history(dataset, make_knowledge):
    rows = dataset.rows("test")
    ranking = make_knowledge(dataset, rows, k=30).ranking
    assert np.array_equal(top_lists(ranking, dataset, rows, 5, filter_seen=False), ranking[:, :5])
    targets = dataset.targets(rows)
    for keep in (False, True):
        found = top_lists(ranking, dataset, rows, 30, filter_seen=True, keep_targets=keep)
        for i, row in enumerate(rows):
            seen = set(dataset.histories(np.array([row]), 99)[0].tolist()) - ({targets[i]} if keep else set())
            assert [item for item in found[i].tolist() if item >= 0] == [
                item for item in ranking[i].tolist() if item not in seen
            ]
    assert top_lists(ranking[:, :2], dataset, rows, 4, filter_seen=False)[:, 2:].max() == -1
