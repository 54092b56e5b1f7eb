import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.knowledge.comparisons import ndcg_difference, relative_strength, top_overlap
from references.overlap import table2, table3

RANKS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(RANKS)
def test_strength_counts_rows(pairs):
    first, second = np.array(pairs).T
    found = relative_strength(first, second, k=10)
    better, worse = table2(first.tolist(), second.tolist())
    assert found.better == pytest.approx(better / len(pairs))
    assert found.worse == pytest.approx(worse / len(pairs))
    assert found.better + found.worse + found.equal == pytest.approx(1)
    assert found.ratio == (pytest.approx(better / (better + worse)) if better + worse else None)
    assert found.first_only == pytest.approx(np.mean([a < 10 <= b for a, b in pairs]))
    assert found.first_only + found.second_only + found.both + found.neither == pytest.approx(1)
    assert found.hit_rows == sum(min(pair) < 10 for pair in pairs)
    turned = relative_strength(second, first, k=10)
    assert (turned.better, turned.first_only, turned.both) == (found.worse, found.second_only, found.both)


def test_table_2_of_the_paper():
    """53.90 % of the Games rows in which the two differ: BIGRec before DROS."""
    first, second = np.zeros(1000, int), np.ones(1000, int)
    first[539:] = 2
    assert relative_strength(first, second).ratio == pytest.approx(0.539)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 8))
def test_overlap_counts_items(seed, k, rows):
    rng = np.random.default_rng(seed)
    lists = [np.stack([rng.permutation(9)[:k] for _ in range(rows)]) for _ in range(2)]
    for each in lists:
        each[rng.random(each.shape) < 0.2] = -1
    targets = rng.integers(9, size=rows)
    found, counts = top_overlap(*lists, targets), table3(*(x.tolist() for x in lists), targets.tolist())
    listed = (lists[0] != -1).sum(), (lists[1] != -1).sum()
    assert found.shared == pytest.approx(counts["shared"][0] / max(listed[0], 1))
    assert found.first_only == pytest.approx(counts["first_only"][0] / max(listed[0], 1))
    assert found.second_only == pytest.approx(counts["second_only"][0] / max(listed[1], 1))
    for name in ("shared", "first_only", "second_only"):
        items, hits = counts[name]
        assert getattr(found, f"hits_{name}") == (pytest.approx(hits / items) if items else None)


def test_overlap_in_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    one, two = (np.stack([rng.permutation(40)[:20] for _ in range(50)]) for _ in range(2))
    targets = rng.integers(40, size=50)
    whole = top_overlap(one, two, targets)
    monkeypatch.setattr("recdistill.knowledge.lists.CHUNK_ELEMENTS", 900)
    assert top_overlap(one, two, targets) == whole


def test_ndcg_difference():
    first, second = np.array([0, 1, 25]), np.array([2, 1, 0])
    gaps = [1 - 0.5, 0, 0 - 1]  # 1 / log2(rank + 2)
    found = ndcg_difference(first, second, k=20)
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.error == pytest.approx(np.std(gaps, ddof=1) / np.sqrt(3))
    assert found.sign() == 0
    many = ndcg_difference(np.zeros(100, int), np.arange(100) % 2)
    assert (many.sign(), many.sign(20)) == (1, 0)
    assert ndcg_difference(first[:0], second[:0]).sign() == 0
    assert ndcg_difference(first, first).sign() == 0
