from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import FreqD, Hint
from recdistill.strategies.item_graph import nearest_graph
from recdistill.types import PAD, Task
from references import item_strategies as naive
from references.item_cases import batch_of, item_vectors, output_of, prepared

#: The nearest of each is its neighbour on the path 0 - 1 - 2.
PATH = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def dense(graph, items):
    matrix = np.zeros((items, items))
    for row in range(items):
        _, others, weights = graph.edges_of(torch.tensor([row]))
        matrix[row, others.numpy()] = weights.numpy()
    return matrix


def test_path_of_the_specification():
    graph = nearest_graph(PATH, torch.ones(3, dtype=torch.bool), 1)
    half = 0.5**0.5
    np.testing.assert_allclose(dense(graph, 3), [[0, half, 0], [half, 0, half], [0, half, 0]], rtol=1e-6)
    filtered = graph.smooth(torch.arange(3), lambda rows: torch.eye(3)[rows], 0.4)
    expected = [
        [0.6, 0.282842712474619, 0.0],
        [0.282842712474619, 0.6, 0.282842712474619],
        [0.0, 0.282842712474619, 0.6],
    ]
    np.testing.assert_allclose(filtered.numpy(), expected, rtol=1e-6)
    gains = np.linalg.eigvalsh(filtered.double().numpy())
    np.testing.assert_allclose(gains, [0.2, 0.6, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("residual", "plain", "filtered"), [([1, 0, -1], 2.0, 0.72), ([1, math.sqrt(2), 1], 4.0, 4.0)]
)
def test_numbers_of_the_specification(residual, plain, filtered):
    """A residual between neighbours is damped, one that neighbours share stays."""
    wanted = torch.tensor(residual, dtype=torch.float32).unsqueeze(1)
    for alpha, expected in ((0.0, plain), (0.4, filtered)):
        made = prepared(FreqD(alpha=alpha, neighbours=1, standardise=False, rank=None), PATH, 1)
        made.reduction = "sum"
        everything = torch.arange(3)
        made.filtered = made.graph.smooth(everything, lambda rows: torch.zeros(3, 1)[rows], alpha)
        made.regressor = torch.nn.Identity()
        loss = made(output_of(wanted), batch_of([[0, 1]], [2]))
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_graph_is_that_of_a_dense_construction(neighbours):
    vectors = item_vectors(25, 5, missing=(3, 24))
    graph = nearest_graph(vectors, (vectors != 0).any(1), neighbours)
    expected = naive.nearest_adjacency(vectors.double().numpy(), neighbours)
    np.testing.assert_allclose(dense(graph, 25), expected, atol=1e-6)
    assert dense(graph, 25)[3].sum() == 0


def test_graph_in_small_blocks(monkeypatch):
    vectors = item_vectors(25, 5)
    whole = nearest_graph(vectors, (vectors != 0).any(1), 3)
    monkeypatch.setattr("recdistill.strategies.item_graph._ROWS_AT_ONCE", 4)
    blocks = nearest_graph(vectors, (vectors != 0).any(1), 3)
    assert torch.equal(whole.items, blocks.items)
    assert torch.equal(whole.starts, blocks.starts)


@pytest.mark.parametrize("known", [0, 1])
def test_a_graph_of_too_few_items_has_no_edge(known):
    vectors = torch.zeros(4, 3)
    vectors[:known] = 1.0
    graph = nearest_graph(vectors, (vectors != 0).any(1), 5)
    assert len(graph.items) == 0
    rows = torch.arange(4)
    torch.testing.assert_close(graph.smooth(rows, lambda r: vectors[r], 0.5), 0.5 * vectors)


@pytest.mark.parametrize("regressor", ["linear", "mlp"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_it_is_the_naive_formula_on_the_whole_table(regressor, alpha):
    torch.manual_seed(2)
    teacher, table = item_vectors(20, 6, missing=(3,)), torch.randn(20, 4)
    made = prepared(FreqD(alpha=alpha, neighbours=2, rank=None, regressor=regressor), teacher, 4)
    made.reduction = "sum"
    history, targets, items = [[0, 3, 5, PAD], [5, 7, 1, 9]], [2, 3], [0, 1, 2, 5, 7, 9]
    standardised = teacher.clone()
    known = [i for i in range(20) if i != 3]
    standardised[known] = (teacher[known] - teacher[known].mean(0)) / teacher[known].std(0, correction=0)
    residuals = (made.regressor(table) - standardised).detach().double().numpy()
    adjacency = naive.nearest_adjacency(standardised.double().numpy(), 2)
    expected = naive.freqd(residuals, adjacency, alpha, items)
    found = made(output_of(table), batch_of(history, targets))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    made.reduction = "item"
    assert made(output_of(table), batch_of(history, targets)).item() == pytest.approx(expected / 6, rel=1e-5)


def test_without_a_filter_it_is_twice_hint():
    teacher, table = item_vectors(12, 6), torch.randn(12, 4)
    made, hint = prepared(FreqD(alpha=0.0, rank=None), teacher, 4), prepared(Hint(), teacher, 4)
    hint.regressor.load_state_dict(made.regressor.state_dict())
    batch = batch_of([[0, 5, 3]], [2])
    torch.testing.assert_close(made(output_of(table), batch), 2 * hint(output_of(table), batch))


def test_the_gradient_reaches_the_items_of_the_batch_and_their_neighbours():
    table = torch.randn(3, 2, requires_grad=True)
    made = prepared(FreqD(alpha=0.4, neighbours=1, standardise=False, rank=None), PATH, 2)
    made(output_of(table), batch_of([[0]], [0])).backward()
    assert (table.grad.abs().sum(1) > 0).tolist() == [True, True, False]
    assert sorted(made.state_dict()) == ["regressor.bias", "regressor.weight"]


def test_a_batch_without_text_costs_nothing():
    made = prepared(FreqD(rank=3), item_vectors(12, 6), 4)
    assert made(output_of(torch.randn(12, 4)), batch_of([[3]], [3])).item() == 0


def test_refuses():
    with pytest.raises(KnowledgeError, match="'freqd'"):
        FreqD().prepare(Task(3, 2, 2, torch.ones(3)))
    for options in ({"alpha": -0.1}, {"neighbours": 0}, {"regressor": "tree"}, {"rank": 0}, {"table": "x"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            FreqD(**options)
