"""BCE, BPR, gBCE and the sampled softmax against their formulas."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.losses import BCE, BPR, GBCE, LOSSES, SampledCE, sampled_cross_entropy
from recdistill.types import Batch, StudentOutput, Task
from references import losses as naive


def answer_of(logits, bias=None):
    """An answer with the given (S, I) logits: the hidden states are unit vectors."""
    logits = torch.as_tensor(logits, dtype=torch.float64)
    return StudentOutput(torch.eye(len(logits), dtype=torch.float64), logits.T, bias, lambda items: items)


def batch_of(targets, negatives=None):
    targets = torch.tensor(targets)
    return Batch(
        history=targets[:, None],
        lengths=torch.ones_like(targets),
        positions=None,
        targets=targets,
        row_ids=targets,
        negatives=None if negatives is None else torch.tensor(negatives),
    )


def task(popularity):
    return Task(len(popularity), 4, 4, torch.tensor(popularity, dtype=torch.float32))


scores = st.floats(-15, 15)


@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_losses_match_the_naive_versions(data, rows, n):
    table = data.draw(st.lists(st.lists(scores, min_size=6, max_size=6), min_size=rows, max_size=rows))
    items = data.draw(
        st.lists(st.lists(st.integers(0, 5), min_size=n + 1, max_size=n + 1), min_size=rows, max_size=rows)
    )
    output, batch = answer_of(table), batch_of([row[0] for row in items], [row[1:] for row in items])
    split = [(f[y[0]], [f[j] for j in y[1:]]) for f, y in zip(table, items, strict=True)]

    def check(loss, expected):
        assert loss(output, batch).item() == pytest.approx(sum(expected) / rows, rel=1e-5, abs=1e-6)

    check(BCE(), [sum(naive.bce_terms(p, q)) for p, q in split])
    check(BCE(reduction="official"), [sum(naive.bce_terms(p, q)) / (1 + n) for p, q in split])
    check(BPR(), [naive.bpr(p, q) for p, q in split])
    check(GBCE(), [naive.gbce(p, q, 6, 0.75) for p, q in split])
    check(GBCE(calibration=0.2), [naive.gbce(p, q, 6, 0.2) for p, q in split])


def test_bce_of_the_specification():
    output, batch = answer_of([[0.2, -0.2, 0.1]]), batch_of([0], [[1]])
    assert BCE(reduction="official")(output, batch).item() == pytest.approx(0.59813887, abs=1e-8)
    assert BCE()(output, batch).item() == pytest.approx(2 * 0.59813887, abs=1e-7)


def test_gbce_without_calibration_is_the_mean_bce():
    output, batch = answer_of([[1.0, -2.0, 0.5]]), batch_of([0], [[1, 2]])
    expected = BCE(reduction="official")(output, batch)
    torch.testing.assert_close(GBCE(calibration=0)(output, batch), expected)


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.needs_negatives])
def test_a_batch_without_negatives_is_refused(name):
    loss = LOSSES[name]()
    loss.prepare(task([1, 1, 1]))
    with pytest.raises(ConfigError, match=r"needs sampled negatives.*train.negatives=1"):
        loss(answer_of([[0.0, 1.0, 2.0]]), batch_of([0]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1.0, 200.0])
def test_every_loss_is_finite_and_falls_when_the_target_rises(name, size):
    if name == "dros" and size > 1:
        size = 50.0  # what the robust term is made for
    torch.manual_seed(0)
    loss = LOSSES[name]()
    loss.prepare(task([3, 0, 1, 5, 2]))
    table = size * torch.tensor([[-1.0, 1, 0.5, 1, -1], [1, -1, 0.5, -1, 1]]).T.contiguous()
    table.requires_grad_()
    output = StudentOutput(torch.eye(2), table, None, lambda items: items)
    batch = batch_of([0, 1], [[1], [0]])
    value = loss(output, batch)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert table.grad.isfinite().all()
    assert table.grad[0, 0] < 0
    assert table.grad[1, 1] < 0


@pytest.mark.parametrize("name", LOSSES)
def test_permuting_the_rows_changes_nothing(name):
    torch.manual_seed(0)
    loss = LOSSES[name]()
    loss.prepare(task([3, 0, 1, 5, 2]))
    hidden, table, bias = torch.randn(6, 4), torch.randn(5, 4), torch.randn(5)
    targets, negatives = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([[1], [2], [3], [4], [0], [4]])
    values = []
    for order in (torch.arange(6), torch.tensor([3, 5, 0, 1, 4, 2])):
        torch.manual_seed(1)
        output = StudentOutput(hidden[order], table, bias, lambda items: items)
        batch = batch_of(targets[order].tolist(), negatives[order].tolist())
        values.append(loss(output, batch))
    torch.testing.assert_close(*values)


@given(st.data(), st.integers(1, 4))
def test_sampled_ce_matches_the_naive_version(data, n):
    table = data.draw(st.lists(st.lists(scores, min_size=5, max_size=5), min_size=2, max_size=2))
    bias = data.draw(st.lists(scores, min_size=5, max_size=5))
    sample = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    counts = data.draw(st.lists(st.floats(0.1, 3), min_size=n, max_size=n))
    output, targets = answer_of(table, torch.tensor(bias, dtype=torch.float64)), [1, 4]
    value = sampled_cross_entropy(
        output, torch.tensor(targets), torch.tensor(sample), torch.tensor(counts, dtype=torch.float64).log()
    )
    rows = [[f + b for f, b in zip(row, bias, strict=True)] for row in table]
    expected = [naive.sampled_cross_entropy(f, y, sample, counts) for f, y in zip(rows, targets, strict=True)]
    assert value.item() == pytest.approx(sum(expected) / 2, rel=1e-6, abs=1e-9)


@settings(max_examples=10)
@given(st.lists(scores, min_size=5, max_size=5), st.integers(0, 4))
def test_sampling_every_item_once_is_the_full_softmax(row, target):
    value = sampled_cross_entropy(answer_of([row]), torch.tensor([target]), torch.arange(5), torch.zeros(5))
    assert value.item() == pytest.approx(naive.cross_entropy(row, target), rel=1e-6, abs=1e-9)


def test_cold_items_add_nothing_to_the_sampled_sum():
    answer = replace(
        answer_of([[0.3, -1.0, 0.8, 2.0, 0.1]]), cold=torch.tensor([False, True, False, True, False])
    )
    value = sampled_cross_entropy(answer, torch.tensor([2]), torch.arange(5), torch.zeros(5))
    assert value.item() == pytest.approx(naive.cross_entropy([0.3, 0.8, 0.1], 1), rel=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_sampled_sum_is_unbiased(power):
    torch.manual_seed(0)
    loss = SampledCE(negatives=20000, power=power)
    loss.prepare(task([1, 8, 2, 0, 5]))
    row = [0.3, -1.0, 0.8, 2.0, 0.1]
    value = loss(answer_of([row]), batch_of([2])).item()
    assert value == pytest.approx(naive.cross_entropy(row, 2), abs=0.03)
    without_correction = math.log(math.exp(0.8) + 20000 * sum(map(math.exp, row)) / 5) - 0.8
    assert abs(value - without_correction) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BCE(reduction="mean"), "unknown reduction 'mean'.*official, paper"),
        (lambda: GBCE(calibration=1.1), "calibration=1.1. Allowed: 0 to 1"),
        (lambda: SampledCE(negatives=0), "negatives=0.*Allowed: negatives at least 1"),
        (lambda: SampledCE(power=-1), "power=-1.*Allowed"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
