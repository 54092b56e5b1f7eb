"""Items that training never saw: pushed by no strategy unless its teacher scores them."""

from dataclasses import replace

import pytest
import torch

from recdistill.strategies import STRATEGIES
from recdistill.strategies.draws import draw_negatives
from recdistill.types import PAD, Batch, KnowledgeRows, StudentOutput, Task

ITEMS, ROWS, LISTED = 60, 24, 8
COLD = torch.arange(ITEMS) % 3 == 0

#: Strategies whose other items are negatives: cold ones are left out unless the row's teacher lists them.
LEFT_OUT = [
    ("rrd", {"k": 4, "pool": LISTED, "samples": 40}),
    ("rrd", {"k": 4, "pool": LISTED, "negatives": "full"}),
    ("hetcomp", {"k": LISTED}),
    ("dcd", {"pool": 40, "k": 30, "item_weight": 0.0}),
    ("rce", {"k": 30, "samples": 20, "pool": 50}),
    ("cd", {"samples": 40, "pool": LISTED}),
    ("cd", {"samples": 40, "pool": 40, "guide": "student", "candidates": ITEMS}),
    ("unkd", {"groups": 12, "pairs": 240, "pool": 2}),
]


def case(seed=0):
    torch.manual_seed(seed)
    ranking = torch.stack([torch.randperm(ITEMS - 1)[:LISTED] for _ in range(ROWS)])
    distance = torch.rand(ROWS, LISTED).sort(1).values + 3
    covered = torch.ones(ROWS, dtype=torch.bool)
    known = KnowledgeRows(covered, ranking, distance, query_embeddings=torch.randn(ROWS, 5))
    history = torch.full((ROWS, 1), ITEMS - 1)
    batch = Batch(history, covered.long(), None, history[:, 0], torch.arange(ROWS), knowledge=known)
    return torch.randn(ROWS, ITEMS, requires_grad=True), batch, ranking


def gradients(name, options, cold):
    """Return the gradient ``(S, I)`` of a strategy's loss, and which items each row's teacher lists."""
    logits, batch, ranking = case()
    torch.manual_seed(1)
    strategy = STRATEGIES[name](**options)
    popularity = torch.where(COLD, 0.0, torch.arange(ITEMS).float() + 1)
    strategy.prepare(Task(ITEMS, ITEMS, ITEMS, popularity, torch.randn(ITEMS, 5)))
    eye = torch.eye(ITEMS)
    output = StudentOutput(logits, eye, None, lambda items: eye[items], cold)
    strategy(output, batch).backward()
    listed = torch.zeros(ROWS, ITEMS, dtype=torch.bool).scatter_(1, ranking, True)
    return logits.grad, listed


@pytest.mark.parametrize(("name", "options"), LEFT_OUT)
def test_others_that_nobody_ever_bought_are_no_negatives(name, options):
    gradient, listed = gradients(name, options, COLD)
    assert not gradient[:, COLD][~listed[:, COLD]].any()
    assert gradient[:, COLD][listed[:, COLD]].any()  # the teacher listed them: that is an opinion
    assert gradient[:, ~COLD][~listed[:, ~COLD]].any()
    before, _ = gradients(name, options, None)
    assert before[:, COLD][~listed[:, COLD]].any()  # without a sign that they are cold they would be pushed


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("soft_labels", {"k": LISTED}),
        ("soft_labels", {"teacher": "dot"}),
        ("rce", {"k": 30, "samples": 20, "pool": 50, "teacher_scores": "dot"}),
        ("cd", {"samples": 40, "pool": LISTED, "teacher_scores": "dot"}),
    ],
)
def test_a_teacher_that_scores_them_teaches_them(name, options):
    found = [gradients(name, options, cold) for cold in (COLD, None)]
    gradient, listed = found[0]
    assert gradient[:, COLD][~listed[:, COLD]].any()
    torch.testing.assert_close(gradient, found[1][0])  # nothing depends on what is cold


def test_negatives_are_drawn_from_the_warm_items_that_are_not_banned():
    torch.manual_seed(0)
    eye = torch.eye(ITEMS)
    output = StudentOutput(torch.zeros(3, ITEMS), eye, None, lambda items: eye[items], COLD)
    warm = torch.arange(ITEMS)[~COLD]
    banned = torch.stack([warm[:5], torch.tensor([0, 3, PAD, 1, 1]), torch.full((5,), PAD)])
    drawn = draw_negatives(output, 4000, banned)
    for row in range(3):
        assert set(drawn[row].tolist()) == set(warm.tolist()) - set(banned[row].tolist())
    everything = draw_negatives(output, 6, warm.expand(3, -1))
    assert (everything == PAD).all()
    assert not output.is_cold(torch.tensor([PAD, 1])).any()
    assert output.is_cold(torch.tensor([[0, 1]])).tolist() == [[True, False]]
    assert not replace(output, cold=None).is_cold(torch.tensor([0, PAD])).any()
