"""Retrieval: it is brute force, it looks back only, and what is shown tells nothing by its place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.types import PAD
from recdistill.user_encoders import retrieval
from recdistill.user_encoders.retrieval import ExampleIndex, Quota, history_vectors, newest_items, summed
from references.in_context import naive_examples, naive_history_vector


def index_of(rng, count=60, size=9, days=12, share=0.5):
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(count, size))), dim=1)
    labels = torch.from_numpy(rng.random(count) < share)
    times = torch.from_numpy(rng.integers(0, days, count))
    return ExampleIndex(vectors, labels, times, torch.from_numpy(rng.permutation(count)))


def sets(found):
    return [set(row[row != PAD].tolist()) for row in found]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_it_is_brute_force(seed, chosen, refused, share):
    if not chosen + refused:
        return
    rng = np.random.default_rng(seed)
    index = index_of(rng, count=int(rng.integers(1, 40)), share=share)
    queries = torch.from_numpy(rng.normal(size=(25, 9)))
    queries[3] = 0  # a history without text
    queries = torch.nn.functional.normalize(queries, dim=1)
    before = torch.from_numpy(rng.integers(-1, 14, 25))
    quota = Quota(chosen, refused)
    naive = [part.numpy() for part in (queries, index.vectors, index.labels, index.times)]
    assert sets(index.nearest(queries, quota, before)) == naive_examples(
        *naive, before.tolist(), chosen, refused
    )
    assert sets(index.nearest(queries, quota)) == naive_examples(*naive, [None] * 25, chosen, refused)


def test_small_chunks_find_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    index = index_of(rng, count=200)
    queries = torch.from_numpy(rng.normal(size=(300, 9)))
    before = torch.from_numpy(rng.integers(0, 14, 300))
    whole = index.nearest(queries, Quota(), before)
    seen = []
    original = ExampleIndex._best
    monkeypatch.setattr(
        ExampleIndex, "_best", lambda self, q, *rest: (seen.append(len(q)), original(self, q, *rest))[1]
    )
    monkeypatch.setattr(retrieval, "_AT_ONCE", 200 * 7)
    assert torch.equal(index.nearest(queries, Quota(), before), whole)
    assert max(seen) == 7  # never more than 7 rows by 200 examples at once


def test_nothing_from_the_same_time_or_later():
    rng = np.random.default_rng(1)
    index = index_of(rng, count=300)
    before = torch.from_numpy(rng.integers(0, 13, 400))
    found = index.nearest(torch.from_numpy(rng.normal(size=(400, 9))), Quota(), before)
    there = found != PAD
    assert there.any(1).float().mean() > 0.8
    assert (index.times[found.clamp_min(0)] < before[:, None])[there].all()
    assert (before == 0).any()
    assert not there[before == 0].any()


def test_two_and_two_where_there_are_two_and_two():
    rng = np.random.default_rng(2)
    index = index_of(rng, count=100, share=0.3)
    found = index.nearest(torch.from_numpy(rng.normal(size=(50, 9))), Quota())
    assert (found != PAD).all()
    assert (index.labels[found].sum(1) == 2).all()
    assert all(len(set(row)) == 4 for row in found.tolist())


def test_the_other_label_fills_up_and_then_places_stay_empty():
    vectors = torch.nn.functional.normalize(torch.arange(1.0, 13.0).view(6, 2), dim=1)
    labels = torch.tensor([True, False, False, False, False, False])
    index = ExampleIndex(vectors, labels, torch.tensor([0, 0, 0, 1, 2, 3]), torch.arange(6))
    query = torch.tensor([[1.0, 2.0]])
    found = index.nearest(query, Quota())
    assert index.labels[found].sum() == 1  # one chosen, three refused
    assert sets(index.nearest(query, Quota(), torch.tensor([1]))) == [{0, 1, 2}]
    assert index.nearest(query, Quota(), torch.tensor([1]))[0, -1] == PAD
    assert index.nearest(query, Quota(), torch.tensor([0])).tolist() == [[PAD] * 4]


def test_places_are_seeded_and_tell_no_label():
    rng = np.random.default_rng(3)
    index = index_of(rng, count=500)
    queries = torch.from_numpy(rng.normal(size=(800, 9)))
    found = index.nearest(queries, Quota())
    assert (index.order[found].diff(dim=1) > 0).all()
    assert torch.equal(found, index.nearest(queries, Quota()))
    assert index.labels[found].float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.12)
    similar = (queries.unsqueeze(1) * index.vectors[found]).sum(2)
    assert (similar.argmax(1).bincount() / 800).tolist() == pytest.approx([0.25] * 4, abs=0.12)


def test_no_examples_at_all():
    none = torch.zeros(0, 4)
    index = ExampleIndex(
        none, torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.long), none[:, 0].long()
    )
    assert index.nearest(torch.ones(3, 4), Quota()).tolist() == [[PAD] * 4] * 3


@pytest.mark.parametrize("quota", [(0, 0), (-1, 2)])
def test_quota_is_refused(quota):
    with pytest.raises(ConfigError, match="examples are not possible"):
        Quota(*quota)


def test_newest_items_are_those_up_to_each_position():
    history = torch.tensor([[5, 6, 7, 8, PAD], [1, PAD, PAD, PAD, PAD], [2, 3, 4, 9, 0]])
    lengths = torch.tensor([4, 1, 5])
    assert newest_items(history, lengths, None, 3).tolist() == [[8, 7, 6], [1, PAD, PAD], [0, 9, 4]]
    positions = torch.tensor([0, 2, 5, 14])
    assert newest_items(history, lengths, positions, 2).tolist() == [[5, PAD], [7, 6], [1, PAD], [0, 9]]


def test_history_vectors_are_the_naive_mean_s_direction():
    rng = np.random.default_rng(4)
    text = rng.normal(size=(20, 6))
    items = rng.integers(-1, 20, (30, 5))
    items[4] = PAD
    found = history_vectors(torch.from_numpy(text), torch.from_numpy(items))
    naive = np.stack([naive_history_vector(text, row) for row in items])
    assert found.numpy() == pytest.approx(naive, abs=1e-12)
    assert not found[4].any()
    assert torch.equal(summed(torch.from_numpy(text), torch.full((1, 5), PAD)), torch.zeros(1, 6).double())
