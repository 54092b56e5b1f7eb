"""DROS against its formula, the numbers of the specification, and the limits of float32."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.losses import DROS, dros_log_mass, dros_terms, propensity_scores
from recdistill.types import PAD, Batch, StudentOutput, Task
from references import losses as naive


def answer_of(logits, dtype=torch.float64):
    logits = torch.as_tensor(logits, dtype=dtype)
    return StudentOutput(
        torch.eye(len(logits), dtype=dtype), logits.T.contiguous(), None, lambda items: items
    )


def batch_of(targets, negatives):
    targets = torch.tensor(targets)
    return Batch(
        history=targets[:, None],
        lengths=torch.ones_like(targets),
        positions=None,
        targets=targets,
        row_ids=targets,
        negatives=torch.tensor(negatives),
    )


EXAMPLE = [[0.2, -0.2, 0.1]]
PROPENSITY = torch.tensor([0.6, 0.5, 0.5], dtype=torch.float64)


def test_term_and_gradient_of_the_specification():
    output = answer_of(EXAMPLE)
    output.item_table.requires_grad_()
    term = dros_terms(output, torch.tensor([[0]]), PROPENSITY, 1.0)
    assert term.item() == pytest.approx(1.25086382, abs=1e-8)
    assert math.exp(term.item()) == pytest.approx(3.49335930, abs=1e-8)
    term.backward()
    assert output.item_table.grad[:, 0].tolist() == pytest.approx(
        [-0.40345682, -0.05840804, 0.02876923], abs=1e-8
    )


def test_whole_loss_of_the_specification():
    loss = DROS(alpha=0.5)
    loss.propensity = PROPENSITY
    assert loss(answer_of(EXAMPLE), batch_of([0], [[1]])).item() == pytest.approx(1.22357078, abs=1e-8)


def test_term_at_zero_scores_of_the_specification():
    term = dros_terms(answer_of([[0.0, 0, 0]]), torch.tensor([[0]]), PROPENSITY, 1.0)
    assert term.item() == pytest.approx(1.34080493, abs=1e-8)


def test_propensities_of_the_specification():
    p = propensity_scores(torch.tensor([3.0, 0, 1]))
    assert p.dtype == torch.float32
    assert p.tolist() == pytest.approx([0.97240705, 0.90728786, 0.93928329], abs=1e-7)
    assert p.tolist() == pytest.approx(naive.propensity([3, 0, 1]), rel=1e-6)


def test_zero_propensity_gives_log_of_the_item_count():
    terms = dros_terms(answer_of([[3.0, -5, 2, 9]]), torch.tensor([[0, 1, 2, 3]]), torch.zeros(4), 1.0)
    assert terms[0].tolist() == pytest.approx([math.log(4)] * 4)


values = st.floats(-20, 20)


@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.5, 1.0, 3.0]))
def test_terms_match_the_naive_version(data, rows, k, radius):
    table = data.draw(st.lists(st.lists(values, min_size=5, max_size=5), min_size=rows, max_size=rows))
    items = data.draw(
        st.lists(st.lists(st.integers(0, 4), min_size=k, max_size=k), min_size=rows, max_size=rows)
    )
    p = data.draw(st.lists(st.floats(0.3, 1), min_size=5, max_size=5))
    if any(f * f / radius > 600 for row in table for f in row):
        return  # the naive version overflows
    terms = dros_terms(answer_of(table), torch.tensor(items), torch.tensor(p, dtype=torch.float64), radius)
    for row in range(rows):
        expected = [naive.dros_term(table[row], p, radius, c) for c in items[row]]
        assert terms[row].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def plain_terms(logits, items, propensity, radius):
    """The formula by autograd on all logits, one candidate at a time."""
    columns = []
    for column in items.T:
        hot = torch.nn.functional.one_hot(column, logits.shape[1])
        columns.append((propensity * (logits - hot).square() / radius).logsumexp(1))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [0.3, 3.0, 12.0])
def test_gradients_match_autograd_on_the_formula(scale, bias):
    torch.manual_seed(0)
    hidden = (scale * torch.randn(6, 4, dtype=torch.float64)).requires_grad_()
    table = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(9, dtype=torch.float64, requires_grad=True) if bias else None
    leaves = [leaf for leaf in (hidden, table, offsets) if leaf is not None]
    propensity = torch.rand(9, dtype=torch.float64)
    logits = hidden @ table.T + (0 if offsets is None else offsets)
    items = torch.cat(
        [torch.randint(0, 9, (6, 2)), logits.square().mul(propensity).argmax(1, keepdim=True)], 1
    )
    weights = torch.rand(6, 3, dtype=torch.float64)
    ours = dros_terms(StudentOutput(hidden, table, offsets, lambda x: x), items, propensity, 1.3)
    plain = plain_terms(logits, items, propensity, 1.3)
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(
        torch.autograd.grad((weights * ours).sum(), leaves),
        torch.autograd.grad((weights * plain).sum(), leaves),
    )


@pytest.mark.parametrize("size", [1.0, 12.0, 50.0])
def test_float32_agrees_with_float64_up_to_scores_of_50(size):
    torch.manual_seed(0)
    logits = torch.rand(8, 40).mul(2).sub(1) * size
    logits[0] = 0
    logits[0, 3] = size  # one item holds nearly all of the mass
    items = torch.cat([torch.randint(0, 40, (8, 4)), torch.full((8, 1), 3)], 1)
    propensity = torch.rand(40) * 0.5 + 0.4
    output = answer_of(logits, torch.float32)
    output.item_table.requires_grad_()
    terms = dros_terms(output, items, propensity, 1.0)
    exact = plain_terms(logits.double(), items, propensity.double(), 1.0)
    torch.testing.assert_close(terms.double(), exact, rtol=1e-6, atol=1e-6)
    terms.sum().backward()
    assert output.item_table.grad.isfinite().all()


def test_the_dominant_item_does_not_cancel():
    """The case of the specification: the factored form alone gives 1236.2 for the dominant item."""
    p = 0.5
    logits = torch.zeros(1, 4)
    logits[0, 0] = 50
    term = dros_terms(answer_of(logits, torch.float32), torch.tensor([[0, 1]]), torch.full((4,), p), 1.0)
    assert term[0].tolist() == pytest.approx([p * 49**2, p * 50**2])


def test_the_mass_is_computed_once_for_all_who_ask():
    output = answer_of(EXAMPLE)
    first = dros_log_mass(output, PROPENSITY, 1.0)
    dros_terms(output, torch.tensor([[2]]), PROPENSITY, 1.0)
    assert dros_log_mass(output, PROPENSITY, 1.0) is first
    assert dros_log_mass(output, PROPENSITY, 2.0).item() != first.item()
    expected = math.log(
        sum(math.exp(p * f * f) for p, f in zip(PROPENSITY.tolist(), EXAMPLE[0], strict=True))
    )
    assert first.item() == pytest.approx(expected)


def test_pads_get_the_term_of_item_0_and_no_error():
    terms = dros_terms(answer_of(EXAMPLE), torch.tensor([[0, PAD]]), PROPENSITY, 1.0)
    assert terms[0, 0] == terms[0, 1]


def test_nothing_is_float64():
    loss = DROS()
    loss.prepare(Task(3, 4, 4, torch.tensor([3.0, 0, 1])))
    assert loss.propensity.dtype == torch.float32
    output = answer_of(EXAMPLE, torch.float32)
    assert loss(output, batch_of([0], [[1]])).dtype == torch.float32
    assert output.logits.dtype == torch.float32


def test_without_weight_it_is_bce_and_asks_for_no_logits():
    output = answer_of(EXAMPLE)
    assert DROS(alpha=0)(output, batch_of([0], [[1]])).item() == pytest.approx(0.59813887, abs=1e-8)
    assert "logits" not in vars(output)


def test_it_works_under_autocast():
    torch.manual_seed(0)
    hidden, table = torch.randn(6, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = DROS()
    loss.prepare(Task(9, 4, 4, torch.arange(9.0)))
    batch = batch_of([0, 1, 2, 3, 4, 5], [[8]] * 6)
    exact = loss(StudentOutput(hidden, table, None, lambda x: x), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(StudentOutput(hidden, table, None, lambda x: x), batch)
    half.backward()
    assert half.item() == pytest.approx(exact.item(), rel=0.01)
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"alpha": -1}, {"radius": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match="Allowed: alpha at least 0, radius above 0"):
        DROS(**options)
