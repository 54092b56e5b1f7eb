"""The chunked cross-entropy against torch's on all scores."""

import pytest
import torch
import torch.nn.functional as F

from recdistill.errors import ConfigError
from recdistill.losses import CE, chunked_cross_entropy
from recdistill.types import Batch, StudentOutput
from references import losses as naive

ROWS, ITEMS, SIZE = 23, 37, 5


def parts(dtype, scale=1.0, bias=True):
    torch.manual_seed(0)
    hidden = (torch.randn(ROWS, SIZE, dtype=dtype) * scale).requires_grad_()
    table = torch.randn(ITEMS, SIZE, dtype=dtype).requires_grad_()
    offsets = torch.randn(ITEMS, dtype=dtype).requires_grad_() if bias else None
    return hidden, table, offsets, torch.randint(0, ITEMS, (ROWS,))


def whole(hidden, table, bias, targets):
    scores = hidden @ table.T
    return F.cross_entropy(scores if bias is None else scores + bias, targets)


def results(loss, leaves):
    leaves = [leaf for leaf in leaves if leaf is not None]
    return loss.detach(), torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 23, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_value_and_gradients_are_those_of_all_scores(dtype, tolerance, rows, bias):
    *leaves, targets = parts(dtype, bias=bias)
    mib = rows * ITEMS * dtype.itemsize / 2**20
    ours = results(3 * chunked_cross_entropy(*leaves, targets, chunk_mib=mib), leaves)
    torch.testing.assert_close(ours, results(3 * whole(*leaves, targets), leaves), rtol=0, atol=tolerance)


def test_value_is_that_of_the_formula():
    hidden, table, bias, targets = parts(torch.float64)
    scores = (hidden @ table.T + bias).tolist()
    expected = sum(naive.cross_entropy(f, y) for f, y in zip(scores, targets.tolist(), strict=True)) / ROWS
    assert chunked_cross_entropy(hidden, table, bias, targets).item() == pytest.approx(expected, rel=1e-12)


def test_scores_of_200_stay_exact():
    *leaves, targets = parts(torch.float32)
    leaves[0] = (leaves[0].detach().sign() * 40).requires_grad_()
    leaves[1] = leaves[1].detach().sign().requires_grad_()
    assert (leaves[0] @ leaves[1].T).abs().max() == 200
    ours = results(chunked_cross_entropy(*leaves, targets), leaves)
    torch.testing.assert_close(ours, results(whole(*leaves, targets), leaves), rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for_gets_a_gradient():
    hidden, table, bias, targets = parts(torch.float64)
    with torch.no_grad():
        value = chunked_cross_entropy(hidden, table, bias, targets)
    assert not value.requires_grad
    frozen = chunked_cross_entropy(hidden, table.detach(), bias.detach(), targets)
    (gradient,) = torch.autograd.grad(frozen, [hidden])
    torch.testing.assert_close(
        gradient, torch.autograd.grad(whole(hidden, table, bias, targets), [hidden])[0]
    )
    torch.testing.assert_close(value, frozen.detach())


def test_bfloat16_products_keep_a_float32_loss_near_the_exact_one():
    *leaves, targets = parts(torch.float32)
    value, gradients = results(
        CE(dtype="bfloat16")(StudentOutput(*leaves, lambda x: x), batch_of(targets)), leaves
    )
    expected, exact = results(whole(*leaves, targets), leaves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=3e-3)
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_autocast_chooses_the_precision():
    *leaves, targets = parts(torch.float32)
    output, batch = StudentOutput(*leaves, lambda x: x), batch_of(targets)
    exact, half = CE()(output, batch), CE(dtype="bfloat16")(output, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(CE()(output, batch), half)
        assert torch.equal(CE(dtype="float32")(output, batch), exact)
    assert not torch.equal(exact, half)


def batch_of(targets):
    return Batch(
        history=targets[:, None],
        lengths=torch.ones_like(targets),
        positions=None,
        targets=targets,
        row_ids=targets,
    )


def test_no_buffer_is_larger_than_the_budget():
    hidden = torch.randn(64, 4, requires_grad=True)
    table = torch.randn(4096, 4, requires_grad=True)
    with torch.profiler.profile(
        profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]
    ) as profile:
        CE(chunk_mib=0.125)(
            StudentOutput(hidden, table, None, lambda x: x), batch_of(torch.arange(64))
        ).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.key_averages())
    assert largest < 64 * 4096 * 4 / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "float8"}, "unknown dtype 'float8'"), ({"chunk_mib": 0}, "chunk_mib=0. Allowed: above 0")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CE(**options)


@pytest.mark.parametrize("bias", [True, False])
def test_cold_items_are_left_out_and_take_no_gradient(bias):
    hidden, table, offsets, targets = parts(torch.float64, bias=bias)
    cold = torch.zeros(ITEMS, dtype=torch.bool)
    cold[[i for i in range(ITEMS) if i not in targets.tolist()][:3]] = True
    output = StudentOutput(hidden, table, offsets, lambda items: table[items], cold)
    batch = Batch(
        torch.zeros(ROWS, 1, dtype=torch.int64), torch.ones(ROWS), None, targets, torch.arange(ROWS)
    )
    warm = (~cold).nonzero().flatten()
    place = torch.full((ITEMS,), -1)
    place[warm] = torch.arange(len(warm))
    expected = whole(hidden, table[warm], None if offsets is None else offsets[warm], place[targets])
    leaves = [hidden, table, offsets]
    ours = results(CE()(output, batch), leaves)
    torch.testing.assert_close(ours, results(expected, leaves), rtol=1e-10, atol=1e-12)
    assert not ours[1][1][cold].any()
