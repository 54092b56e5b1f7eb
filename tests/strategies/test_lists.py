from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import KnowledgeError
from recdistill.strategies.student_lists import ranks_in, student_ranks, student_top_items, top_columns
from recdistill.strategies.teacher_lists import contained, teacher_list
from recdistill.types import PAD, Batch, KnowledgeRows, StudentOutput


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(30, 1500), k=st.integers(1, 5))
def test_top_columns_are_those_of_a_full_search(seed, count, k):
    scores = torch.randn(4, count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(top_columns(scores, k).sort(1).values, scores.topk(k, 1).indices.sort(1).values)


def test_top_columns_with_ties_have_the_best_values():
    scores = torch.randint(0, 4, (5, 2000), generator=torch.Generator().manual_seed(1)).float()
    found = scores.gather(1, top_columns(scores, 7))
    assert torch.equal(found.sort(1).values, scores.topk(7, 1).values.sort(1).values)
    assert all(len(row.unique()) == 7 for row in top_columns(scores, 7))


def test_ranks_count_what_is_above():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0]])
    assert ranks_in(scores, torch.tensor([[0, 1, 2, 3]])).tolist() == [[2, 0, 0, 3]]


@pytest.mark.parametrize("budget", [1, 10**9])
def test_without_logits_chunks_give_the_same(monkeypatch, budget):
    monkeypatch.setattr("recdistill.strategies.student_lists.CHUNK_BYTES", {"cpu": budget, "cuda": budget})
    torch.manual_seed(2)
    hidden, table, bias = torch.randn(7, 4), torch.randn(300, 4), torch.randn(300)
    fresh, computed = (StudentOutput(hidden, table, bias, lambda x: x) for _ in range(2))
    logits = computed.logits
    assert "logits" not in fresh.__dict__
    items = torch.randint(300, (7, 3))
    torch.testing.assert_close(student_ranks(fresh, items), student_ranks(computed, items))
    best = student_top_items(fresh, 6)
    assert torch.equal(best.sort(1).values, logits.topk(6, 1).indices.sort(1).values)
    assert "logits" not in fresh.__dict__
    assert student_top_items(fresh, 6) is best


def test_list_leaves_out_target_and_history_up_to_the_position():
    history = torch.tensor([[0, 1, 2, PAD], [3, 4, PAD, PAD]])
    batch = Batch(
        history=history,
        lengths=torch.tensor([3, 2]),
        positions=torch.tensor([0, 2, 5]),
        targets=torch.tensor([1, 9, 5]),
        row_ids=torch.arange(3),
        knowledge=KnowledgeRows(
            covered=torch.tensor([True, True, False]),
            ranking=torch.tensor([[1, 2, 0, 7, PAD], [2, 5, 0, 9, 6], [6, 7, 8, 9, 5]]),
        ),
    )
    listed = teacher_list(batch, 2, exclude_target=True, exclude_history=True)
    assert listed.mask.tolist() == [[False, True, False, True], [False, True, False, False], [False] * 4]
    assert listed.places[0, 1] == 0
    assert listed.places[0, 3] == 1
    plain = teacher_list(batch, 2, exclude_target=False, exclude_history=False)
    assert plain.mask.tolist() == [[True, True], [True, True], [False, False]]


def test_pad_is_contained_in_nothing():
    assert contained(torch.tensor([[1, PAD, 2]]), torch.tensor([[PAD, 1]])).tolist() == [[True, False, False]]


def test_missing_ranking_is_named():
    batch = Batch(torch.zeros(1, 1), torch.ones(1), None, torch.zeros(1), torch.zeros(1))
    with pytest.raises(KnowledgeError, match="ranking"):
        teacher_list(batch, 2, exclude_target=False, exclude_history=False)


def test_autocast_serves_both():
    torch.manual_seed(3)
    output = StudentOutput(torch.randn(7, 4), torch.randn(300, 4), torch.randn(300), lambda x: x)
    with torch.autocast("cpu", torch.bfloat16):
        best = student_top_items(output, 6)
    values = output.logits.gather(1, best).min(1).values
    assert (values > output.logits.topk(8, 1).values[:, -1] - 0.1).all()


@pytest.mark.parametrize("bias", [True, False])
def test_ranks_that_are_high_enough_need_not_be_exact(bias):
    torch.manual_seed(4)
    table, offset = torch.randn(900, 4), torch.randn(900) if bias else None
    output = StudentOutput(torch.randn(50, 4), table, offset, lambda x: x)
    items = torch.randint(900, (50, 3))
    items[:25, 0] = student_top_items(output, 1)[:25, 0]  # half of the rows must be counted to the end
    exact, found = student_ranks(output, items), student_ranks(output, items, enough=20)
    assert torch.equal(found.clamp_max(20), exact.clamp_max(20))
    assert (found <= exact).all()
    assert (found < exact).any()
    assert torch.equal(found[:25], exact[:25])
