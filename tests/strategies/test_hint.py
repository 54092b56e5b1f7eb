from __future__ import annotations

import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import Hint
from recdistill.types import PAD, Batch, StudentOutput, Task

STUDENT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TEACHER = torch.tensor([[0.0, 2.0, 3.0], [1.0, 1.0, -1.0]])
WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
BIAS = torch.tensor([0.0, 0.0, -1.0])


def batch_of(history: list[list[int]], targets: list[int]) -> Batch:
    rows = torch.tensor(history)
    return Batch(rows, (rows != PAD).sum(1), None, torch.tensor(targets), torch.arange(len(targets)))


def output_of(table: torch.Tensor) -> StudentOutput:
    return StudentOutput(torch.zeros(1, table.shape[1]), table + 1, None, lambda items: table[items])


def prepared(teacher: torch.Tensor, **options) -> Hint:
    hint = Hint(**options)
    hint.prepare(Task(len(teacher), 2, 2, torch.ones(len(teacher)), item_embeddings=teacher))
    return hint


def with_example_weights(hint: Hint) -> Hint:
    hint.regressor.weight.data, hint.regressor.bias.data = WEIGHT.clone(), BIAS.clone()
    return hint


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 4.0), ("item", 4.0 / 2), ("dimension", 1.3333333333333333 / 2)]
)
def test_numbers_of_the_specification(reduction, expected):
    hint = with_example_weights(prepared(TEACHER, standardise=False, reduction=reduction))
    loss = hint(output_of(STUDENT), batch_of([[0, 1, PAD], [1, 1, 0]], [1, 0]))
    assert loss.item() == pytest.approx(expected)


def test_gradients_of_the_specification():
    table = STUDENT.clone().requires_grad_()
    hint = with_example_weights(prepared(TEACHER, standardise=False, reduction="sum"))
    hint(output_of(table), batch_of([[0]], [1])).backward()
    assert table.grad.tolist() == [[0.0, -1.0], [-2.0, -3.0]]
    assert hint.regressor.weight.grad.tolist() == [[1.0, 3.0], [0.0, 2.0], [-1.0, -1.0]]


def test_standardised_teacher_of_the_specification():
    hint = prepared(TEACHER)
    torch.testing.assert_close(hint.teacher, torch.tensor([[-1.0, 1.0, 1.0], [1.0, -1.0, -1.0]]))


def test_only_items_of_the_batch_with_text_count():
    teacher = torch.cat([TEACHER, torch.zeros(1, 3), torch.ones(1, 3)])
    table = torch.cat([STUDENT, torch.full((2, 2), 5.0)]).requires_grad_()
    hint = with_example_weights(prepared(teacher, standardise=False, reduction="sum"))
    loss = hint(output_of(table), batch_of([[0, 2, PAD]], [1]))
    assert loss.item() == pytest.approx(4.0)
    loss.backward()
    assert table.grad[2:].abs().max() == 0
    assert hint(output_of(table), batch_of([[2]], [2])).item() == 0


def test_output_table_is_another():
    hint = with_example_weights(prepared(TEACHER, standardise=False, table="output"))
    other = with_example_weights(prepared(TEACHER, standardise=False))
    batch = batch_of([[0]], [1])
    assert hint(output_of(STUDENT), batch) == other(output_of(STUDENT + 1), batch)


@pytest.mark.parametrize("regressor", ["linear", "mlp"])
def test_regressor_learns(regressor):
    torch.manual_seed(0)
    hint = prepared(torch.randn(30, 6), regressor=regressor, rank=3)
    assert hint.teacher.shape == (30, 3)
    table = torch.nn.Parameter(torch.randn(30, 2))
    optimizer = torch.optim.Adam([*hint.parameters(), table], lr=0.02)
    batch = batch_of([list(range(30))], [0])
    losses = []
    for _ in range(150):
        loss = hint(output_of(table), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not any("teacher" in name for name in hint.state_dict())


def test_refuses():
    with pytest.raises(KnowledgeError, match="item_embeddings"):
        Hint().prepare(Task(3, 2, 2, torch.ones(3)))
    for options in ({"rank": 0}, {"regressor": "tree"}, {"table": "both"}, {"reduction": "mean"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Hint(**options)
