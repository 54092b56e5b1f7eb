from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.knowledge import Knowledge
from recdistill.knowledge.trajectory import stack_rankings
from recdistill.strategies import RRD, HetComp
from recdistill.types import PAD
from references.ranking_strategies import list_distance, order_free, rrd

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -0.5, 0.0, -4.0]])


def test_numbers_of_the_specification(make_case):
    """Its example has five items; the sixth is the target's, so far down that it changes the seventh digit."""
    case = make_case(LOGITS[:, :5], torch.tensor([[0, 1]]), targets=torch.tensor([4]))
    late = HetComp(share=1.0, top_share=1.0, late_weight=1.0, exclude_target=False)
    assert late(case.output(), case.batch).item() == pytest.approx(1.37979767265195, rel=1e-6)
    early = HetComp(exclude_target=False)
    early.attach(torch.tensor([0]), torch.tensor([[[1, 0]]]))
    assert early(case.output(), case.batch).item() == pytest.approx(1.1523639636418848, rel=1e-6)


def test_one_list_is_rrd_with_all_others(make_random):
    case = make_random(1)
    strategy = HetComp(k=5, share=1.0, top_share=1.0, late_weight=1.0)
    rrd_full = RRD(k=5, negatives="full", exclude_target=True)
    # RRD leaves the target out of both sets, HetComp of the list only
    plain = HetComp(k=5, share=1.0, top_share=1.0, late_weight=1.0, exclude_target=False)
    torch.testing.assert_close(
        plain.per_row(case.output(), case.batch),
        RRD(k=5, negatives="full", exclude_target=False).per_row(case.output(), case.batch),
    )
    assert (strategy.per_row(case.output(), case.batch) >= rrd_full.per_row(case.output(), case.batch)).all()


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_naive_formula(make_random, seed):
    case = make_random(seed, width=10)
    early = torch.stack([torch.randperm(40)[:7] for _ in range(12)]).view(2, 6, 7)
    strategy = HetComp(k=10, share=0.6, top_share=0.3, late_weight=0.4)
    strategy.attach(torch.arange(6), early)
    strategy.levels.copy_(torch.tensor([0, 1, 2, 2, 1, 2]))
    rows = strategy.per_row(case.output(computed=False), case.batch).tolist()
    for s, value in enumerate(rows):
        level, target, logits = int(strategy.levels[s]), int(case.batch.targets[s]), case.logits[s].tolist()
        ranking = early[level, s] if level < 2 else case.batch.knowledge.ranking[s]
        top = [i for i in ranking.tolist() if i not in (PAD, target)]
        expected = 0.0
        if not bool(case.batch.knowledge.covered[s]) or not top:
            pass
        elif level < 2:
            expected = order_free(logits, top)
        else:
            for share in (0.6, 0.3):
                first = top[: max(1, int(share * len(top)))]
                rest = [f for i, f in enumerate(logits) if i not in first]
                expected += 0.4 * rrd([logits[i] for i in first], rest) / 2
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_distance_equals_the_naive_formula(make_random):
    case = make_random(2, width=10)
    strategy = HetComp(k=10, depth=6, exclude_target=False)
    own = case.logits.argsort(1, descending=True)[:, :6]
    found = strategy.distance(own, strategy._list(case.batch, torch.full((6,), PAD), torch.zeros(6).long()))
    for s, value in enumerate(found.tolist()):
        top = [i for i in case.batch.knowledge.ranking[s].tolist() if i != PAD]
        expected = list_distance(own[s].tolist(), top if bool(case.batch.knowledge.covered[s]) else [])
        assert value == pytest.approx(expected, abs=1e-6)


def test_a_row_goes_on_when_the_student_has_come_nearer(make_case):
    """The student moves from nothing in common with the next list to half of it, then away from it."""
    strategy = HetComp(k=2, depth=2, interval=2, exclude_target=False)
    strategy.attach(torch.tensor([0, 5]), torch.tensor([[[0, 1], [0, 1]], [[2, 3], [2, 3]]]))
    final = torch.tensor([[4, 5], [4, 5]])

    def step(epoch: int, best: list[int], *, training: bool = True) -> list[int]:
        logits = torch.zeros(2, 8)
        logits[:, best] = torch.tensor([6.0, 5.0])
        case = make_case(logits, final)
        strategy.train(training)
        strategy.on_epoch(epoch)
        strategy(case.output(), case.batch)  # rows 0 and 1: row 1 has no trajectory
        return strategy.levels.tolist()

    assert step(0, [6, 7]) == [0, 0]
    assert step(1, [2, 3]) == [0, 0]  # between two looks
    assert step(2, [6, 7]) == [0, 0]  # the first look: d' is known from now on
    assert strategy.distances[0] == 1.0
    assert step(4, [6, 7]) == [0, 0]  # as far as before
    assert step(6, [2, 4], training=False) == [0, 0]
    assert step(6, [2, 4]) == [1, 0]  # nearer to the second list
    assert strategy.distances[0].item() == pytest.approx(
        list_distance([2, 4], [4, 5])
    )  # now from the final one
    assert step(8, [4, 7]) == [2, 0]
    assert step(10, [6, 7]) == [2, 0]
    assert strategy.distances[1].isnan()


def test_a_row_that_moves_away_goes_on_too(make_case):
    strategy = HetComp(k=2, depth=2, interval=1, exclude_target=False)
    strategy.attach(torch.tensor([0]), torch.tensor([[[0, 1]]]))
    for epoch, best in ((1, [4, 5]), (2, [6, 7])):
        logits = torch.zeros(1, 8)
        logits[:, best] = 5.0
        case = make_case(logits, torch.tensor([[4, 2]]))
        strategy.on_epoch(epoch)
        strategy(case.output(), case.batch)
    assert strategy.levels.tolist() == [1]


def test_the_switch_waits_for_all_rows(make_random):
    case = make_random(3, short=False)
    rankings = case.batch.knowledge.ranking.flip(1).unsqueeze(0)
    by_row, together = HetComp(k=8), HetComp(k=8, switch="all")
    for strategy in (by_row, together):
        strategy.attach(torch.arange(6), rankings)
        strategy.levels[:5] = 1
    assert not torch.equal(
        by_row.per_row(case.output(), case.batch)[:5], together.per_row(case.output(), case.batch)[:5]
    )
    for strategy in (by_row, together):
        strategy.levels[:] = 1
    torch.testing.assert_close(
        by_row.per_row(case.output(), case.batch), together.per_row(case.output(), case.batch)
    )


def test_state_travels_in_a_checkpoint():
    saved, fresh = HetComp(), HetComp()
    for strategy in (saved, fresh):
        strategy.attach(torch.arange(3), torch.zeros(1, 3, 2))
    saved.levels[1] = 1
    fresh.load_state_dict(saved.state_dict())
    assert fresh.levels.tolist() == [0, 1, 0]


def knowledge(rows: list[int], lists: list[list[int]], fingerprint: str = "a") -> Knowledge:
    return Knowledge(
        np.array(rows),
        9,
        ranking=np.array(lists, dtype=np.int32),
        manifest={"dataset_fingerprint": fingerprint},
    )


def test_checkpoints_are_joined_by_row():
    rows, lists = stack_rankings(
        [
            knowledge([1, 3, 4], [[1, 2], [3, 4], [5, 6]]),
            knowledge([3, 4, 8], [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        ]
    )
    assert rows.tolist() == [3, 4]
    assert lists.tolist() == [[[3, 4, PAD], [5, 6, PAD]], [[0, 1, 2], [3, 4, 5]]]


def test_checkpoints_of_other_datasets_are_refused():
    with pytest.raises(KnowledgeError, match="2 datasets"):
        stack_rankings([knowledge([1], [[1]]), knowledge([1], [[1]], "b")])
    with pytest.raises(KnowledgeError, match="ranking"):
        stack_rankings([Knowledge(np.array([1]), 9)])
    with pytest.raises(KnowledgeError, match="row ids"):
        HetComp().attach(torch.tensor([2, 1]), torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    ("option", "value"), [("k", 0), ("share", 1.5), ("top_share", 0.7), ("switch", "never"), ("interval", 0)]
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        HetComp(**{option: value})
