from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.export.screened_top_k import ScreenedBestItems, best_items, whole_products
from recdistill.export.top_k import BestItems

WAYS = [BestItems, *([ScreenedBestItems] if whole_products() else [])]


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(0, 20),
    items=st.integers(1, 9000),
    k=st.integers(1, 60),
    buffer_bytes=st.sampled_from([1 << 12, 1 << 18, 1 << 24]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
    way=st.sampled_from(WAYS),
)
def test_the_same_as_sorting(
    rows: int, items: int, k: int, buffer_bytes: int, bias: bool, seed: int, way: type[BestItems]
) -> None:
    """Whatever is cut into pieces: rows, items, groups."""
    generator = torch.Generator().manual_seed(seed)
    table, hidden = torch.randn(items, 4, generator=generator), torch.randn(rows, 4, generator=generator)
    biases = torch.randn(items, generator=generator) if bias else None
    k = min(k, items)
    owner = torch.arange(rows).repeat_interleave(3)
    item = torch.randint(items, (3 * rows,), generator=generator)
    expected = (hidden.double() @ table.double().T + (0 if biases is None else biases.double())).float()
    expected[owner, item] = -torch.inf
    values, found = way(table, biases, buffer_bytes=buffer_bytes)(hidden, k, seen=(owner, item))
    order = expected.sort(dim=1, descending=True)
    torch.testing.assert_close(values, order.values[:, :k], rtol=1e-4, atol=1e-4)
    real = values > -torch.inf
    own = expected.gather(1, found)
    torch.testing.assert_close(own[real], values[real], rtol=1e-4, atol=1e-4)
    assert all(len(set(line[keep].tolist())) == keep.sum() for line, keep in zip(found, real, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_ties_give_different_items(way: type[BestItems]) -> None:
    values, items = way(torch.ones(5000, 2))(torch.ones(3, 2), 20)
    assert (values == 2).all()
    assert all(len(set(line)) == 20 for line in items.tolist())


def test_memory_is_used_again() -> None:
    best = BestItems(torch.randn(5000, 2))
    best(torch.randn(100, 2), 5)
    buffer = best._buffer
    best(torch.randn(50, 2), 5)
    assert best._buffer is buffer


@pytest.mark.parametrize("k", [0, 6])
def test_k_is_checked(k: int) -> None:
    with pytest.raises(ConfigError, match=f"k is {k}"):
        BestItems(torch.ones(5, 2))(torch.ones(1, 2), k)


needs_vnni = pytest.mark.skipif(not whole_products(), reason="the processor has no quick 8-bit products")


def shop(items: int = 20_000, rows: int = 70) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of very different size, as after training, and biases."""
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(items, 48, generator=generator) * torch.rand(items, 1, generator=generator).pow(3)
    return table, torch.randn(rows, 48, generator=generator), torch.randn(items, generator=generator)


@needs_vnni
@pytest.mark.parametrize("buffer_bytes", [1 << 22, 1 << 25])
@pytest.mark.parametrize("bias", [False, True])
def test_the_screen_leaves_out_most_items_and_none_of_the_best(buffer_bytes: int, bias: bool) -> None:
    table, hidden, biases = shop()
    best = ScreenedBestItems(table, biases if bias else None, buffer_bytes=buffer_bytes)
    scores = hidden.double() @ table.double().T + (biases.double() if bias else 0)
    seen = scores.topk(7, dim=1).indices[:, ::2]  # some of the best are left out
    owner = torch.arange(len(hidden)).repeat_interleave(seen.shape[1])
    pairs = best._candidates(hidden, 20, (owner, seen.flatten()))
    assert pairs is not None
    row, item = pairs
    scores[owner, seen.flatten()] = -torch.inf
    assert (row.diff() >= 0).all()
    for number, line in enumerate(scores.topk(20, dim=1).indices.tolist()):
        left = item[row == number].tolist()
        assert set(line) <= set(left)
        assert not set(seen[number].tolist()) & set(left)
        assert len(left) == len(set(left)) < 1000
    values, items = best(hidden, 20, seen=(owner, seen.flatten()))
    torch.testing.assert_close(values.double(), scores.topk(20, dim=1).values, rtol=1e-5, atol=1e-5)
    assert torch.equal(items, scores.topk(20, dim=1).indices)


@needs_vnni
def test_rounding_is_bounded() -> None:
    """Equation (1), by its words, for each pair of a row and an item."""
    table, hidden, biases = shop(2000, 9)
    best = ScreenedBestItems(table, biases)
    vectors = torch.cat([table, biases[:, None] / best.unit], 1)
    states = torch.cat([hidden, torch.full((9, 1), best.unit)], 1)
    unit = states.abs().amax(1, keepdim=True) / 127
    rounded = (states / unit).round() * unit
    near = best.steps[best.place].float() * best.step[best.place // 64, None]
    wrong = (states.double() @ vectors.double().T - rounded.double() @ near.double().T).abs()
    error, norm = best.error[best.place // 64], best.norm[best.place // 64]
    allowed = states.norm(dim=1, keepdim=True) * error + (states - rounded).norm(dim=1, keepdim=True) * norm
    assert (wrong <= allowed + 1e-5).all()
    assert (near - vectors).abs().max() > 0


@needs_vnni
def test_a_table_of_equal_rows_is_scored_in_full() -> None:
    best = ScreenedBestItems(torch.ones(20_000, 4))
    assert best._candidates(torch.ones(2, 4), 20, None) is None
    assert (best(torch.ones(2, 4), 20)[0] == 4).all()


@needs_vnni
def test_numbers_that_are_not_finite_are_left_to_the_plain_way() -> None:
    best = ScreenedBestItems(shop()[0])
    assert best._candidates(torch.full((1, 48), torch.nan), 20, None) is None


def test_the_way_of_this_processor() -> None:
    assert isinstance(best_items(torch.ones(5, 2)), ScreenedBestItems) == whole_products()
