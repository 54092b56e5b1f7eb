import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recdistill.knowledge import title_groups
from recdistill.knowledge.lists import grouped, keep_slots, repeated_slots, row_chunks, share_pairs

LISTS = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=st.integers(-1, 5))


@settings(max_examples=80, deadline=None)
@given(LISTS)
def test_repeated_slots(lists):
    expected = [
        [value != -1 and value in row[:slot] for slot, value in enumerate(row)] for row in lists.tolist()
    ]
    assert repeated_slots(lists).tolist() == expected


@settings(max_examples=80, deadline=None)
@given(LISTS, st.integers(0, 99))
def test_keep_slots(lists, seed):
    keep = np.random.default_rng(seed).random(lists.shape) < 0.5
    distances = np.arange(lists.size, dtype=np.float32).reshape(lists.shape)
    kept, moved = keep_slots(lists, keep, distances)
    for row in range(len(lists)):
        count = keep[row].sum()
        assert kept[row].tolist() == lists[row][keep[row]].tolist() + [-1] * (lists.shape[1] - count)
        assert moved[row, :count].tolist() == distances[row][keep[row]].tolist()
        assert np.isnan(moved[row, count:]).all()


@settings(max_examples=80, deadline=None)
@given(LISTS, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_share_pairs(lists, pairs):
    owners, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    expected = [[(row, item) in set(pairs) for item in lists[row].tolist()] for row in range(len(lists))]
    assert share_pairs(owners, items, lists, 6).tolist() == expected


def test_title_groups():
    assert title_groups(["Zelda", " zelda ", "", "Halo", "", "ZELDA"]).tolist() == [0, 0, 2, 3, 4, 0]
    assert grouped(np.array([[5, -1, 3]]), np.array([0, 0, 2, 3, 4, 0])).tolist() == [[0, -1, 3]]


def test_row_chunks_cover_everything_once(monkeypatch):
    monkeypatch.setattr("recdistill.knowledge.lists.CHUNK_ELEMENTS", 10)
    assert [(s.start, s.stop) for s in row_chunks(7, 4)] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert len(list(row_chunks(3, 100))) == 3
    assert list(row_chunks(0, 4)) == []
