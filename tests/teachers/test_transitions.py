from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from recdistill.teachers import base
from recdistill.teachers.graph import transitions
from recdistill.teachers.graph.transitions import TransitionGraph
from references.graph_teacher import naive_matrix

SEQUENCES = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=9), min_size=1, max_size=5)


def normalised(matrix):
    sums = matrix.sum(1, keepdims=True)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)


def test_matrix_of_one_sequence_by_hand(make_dataset):
    dataset = make_dataset([[0, 1, 2, 3, 4, 5]])  # training may look at 0, 1, 2, 3
    matrix = TransitionGraph(dataset, max_gap=3, backward=0.7).matrix.toarray()
    expected = np.zeros((6, 6))
    expected[0, 1:4] = 1, 1 / 2, 1 / 3
    expected[1, 2:4] = 1, 1 / 2
    expected[2, 3] = 1
    np.testing.assert_allclose(matrix, expected + 0.7 * expected.T, atol=1e-12)


def test_valid_and_test_events_are_not_in_the_graph(make_dataset):
    graph = TransitionGraph(make_dataset([[0, 1, 2, 3, 4], [5, 6, 7]]))
    assert graph.matrix[[3, 4, 5, 6, 7]].nnz == 0


@settings(max_examples=60, deadline=None)
@given(sequences=SEQUENCES, max_gap=st.integers(1, 4), backward=st.sampled_from([0.0, 0.7, 1.0]))
def test_matrix_is_the_naive_one(make_dataset, sequences, max_gap, backward):
    dataset = make_dataset(sequences, item_count=7)
    graph = TransitionGraph(dataset, max_gap=max_gap, backward=backward)
    np.testing.assert_allclose(graph.matrix.toarray(), naive_matrix(dataset, max_gap, backward), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(sequences=SEQUENCES, backward=st.sampled_from([0.0, 0.7]), steps=st.integers(1, 3))
def test_steps_leave_each_rows_own_transitions_out_exactly(make_dataset, sequences, backward, steps):
    dataset = make_dataset(sequences, item_count=7, prefix=True)
    graph = TransitionGraph(dataset, max_gap=3, backward=backward)
    rows = np.arange(len(dataset.row_ids))
    start = np.random.default_rng(0).random((len(rows), 7)) * (np.arange(7) % 3 != 0)
    result = sparse.csr_array(start)
    own = graph.own_transitions(rows)
    for _ in range(steps):
        result = graph.step(result, own)
    for row in rows:
        p = normalised(naive_matrix(dataset, 3, backward, without=dataset.row_events[row]))
        np.testing.assert_allclose(
            result[[row]].toarray()[0], start[row] @ np.linalg.matrix_power(p, steps), atol=1e-9
        )


def test_a_removed_transition_leaves_no_residue(make_dataset):
    # 0 -> 1 is seen once only, from the row itself, beside many transitions whose sums round.
    others = [[0, 2, 3, 4, 5, 6, 0, 3, 2, 2, 4]] * 7
    dataset = make_dataset([[0, 1, 0, 2, 3], *others])
    row = dataset.rows("train")[:1]
    assert dataset.targets(row)[0] == 1
    graph = TransitionGraph(dataset)
    result = graph.step(sparse.csr_array(np.eye(7)[:1]), graph.own_transitions(row))
    assert result[0, 1] == 0.0
    assert result[0, 2] > 0.0


def test_rows_outside_training_have_nothing_to_leave_out(walks):
    graph = TransitionGraph(walks)
    for split in ("valid", "test"):
        assert len(graph.own_transitions(walks.rows(split)).row) == 0


@pytest.mark.parametrize("with_own", [True, False])
def test_the_dense_last_step_is_the_sparse_step(walks, with_own):
    rows = base.rows_to_teach(walks)
    start = sparse.csr_array(np.random.default_rng(1).random((len(rows), walks.item_count)))
    graph = TransitionGraph(walks)
    own = graph.own_transitions(rows) if with_own else None
    np.testing.assert_allclose(graph.last_step(start, own), graph.step(start, own).toarray(), atol=1e-6)


@pytest.mark.parametrize("ratio", [0, 16, 1e9])
@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("with_own", [True, False])
def test_steps_are_repeated_sparse_steps_whatever_the_graph(walks, monkeypatch, density, ratio, with_own):
    monkeypatch.setattr(transitions, "_DENSE_FROM", density)
    monkeypatch.setattr(transitions, "_FULL", ratio)
    monkeypatch.setattr(transitions, "_NOT_FULL", ratio)
    monkeypatch.setattr(transitions, "_BLOCK", 16)
    graph = TransitionGraph(walks, max_gap=2, backward=0.5)
    assert graph.is_full == (density == 0.0)
    rows = base.rows_to_teach(walks)
    assert len(rows) > 16
    weights = np.random.default_rng(2).random((len(rows), walks.item_count))
    weights[weights < 0.95] = 0  # two or so of the items
    own = graph.own_transitions(rows) if with_own else None
    expected = sparse.csr_array(weights)
    found = list(graph.steps(sparse.csr_array(weights), own, 3))
    assert len(found) == 3
    for step in found:
        expected = graph.step(expected, own)
        assert step.dtype == np.float32
        np.testing.assert_allclose(step, expected.toarray(), atol=1e-6)
        # what is left out is left out, to the last bit
        np.testing.assert_array_equal(step == 0, expected.toarray() == 0)
        step[:] = np.nan  # what was given away is the caller's to write in
    np.testing.assert_allclose(
        graph.last_step(weights, own), graph.step(sparse.csr_array(weights), own).toarray(), atol=1e-6
    )


def test_overlapping_windows_count_each_transition_once(make_dataset):
    whole = make_dataset([[0, 1, 2, 3, 4, 5, 6]], item_count=7)  # training targets: 1 .. 4
    windows = make_dataset([[0, 1, 2, 3], [0, 1, 2, 3, 4]], item_count=7)
    targets = np.array([1, 2, 3, 8])  # the second window repeats the first as mere context
    windows = replace(
        windows,
        row_ids=np.arange(4),
        row_events=targets,
        row_sequences=np.array([0, 0, 0, 1]),
        row_splits=np.zeros(4, dtype=np.int8),
    )
    np.testing.assert_allclose(
        TransitionGraph(windows).matrix.toarray(), TransitionGraph(whole).matrix.toarray()
    )
