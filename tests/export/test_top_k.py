from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.export.top_k import BestItems


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 20),
    items=st.integers(1, 9000),
    k=st.integers(1, 60),
    buffer_bytes=st.sampled_from([1 << 12, 1 << 18, 1 << 24]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_same_as_sorting(rows: int, items: int, k: int, buffer_bytes: int, bias: bool, seed: int) -> None:
    """Whatever is cut into pieces: rows, items, groups."""
    generator = torch.Generator().manual_seed(seed)
    table, hidden = torch.randn(items, 4, generator=generator), torch.randn(rows, 4, generator=generator)
    biases = torch.randn(items, generator=generator) if bias else None
    k = min(k, items)
    owner = torch.arange(rows).repeat_interleave(3)
    item = torch.randint(items, (3 * rows,), generator=generator)
    expected = (hidden.double() @ table.double().T + (0 if biases is None else biases.double())).float()
    expected[owner, item] = -torch.inf
    values, found = BestItems(table, biases, buffer_bytes=buffer_bytes)(hidden, k, seen=(owner, item))
    order = expected.sort(dim=1, descending=True)
    torch.testing.assert_close(values, order.values[:, :k], rtol=1e-4, atol=1e-4)
    real = values > -torch.inf
    own = expected.gather(1, found)
    torch.testing.assert_close(own[real], values[real], rtol=1e-4, atol=1e-4)
    assert all(len(set(line[keep].tolist())) == keep.sum() for line, keep in zip(found, real, strict=True))


def test_ties_give_different_items() -> None:
    values, items = BestItems(torch.ones(5000, 2))(torch.ones(3, 2), 20)
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
