import pytest
import torch
from torch import Tensor

from recdistill.products import listed_products, rows_at_once


def one_by_one(hidden: Tensor, table: Tensor, items: Tensor) -> Tensor:
    rows = [
        torch.stack([state @ table[item] for item in row]) for state, row in zip(hidden, items, strict=True)
    ]
    return torch.stack(rows)


def made(rows: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + width)
    hidden = torch.randn(rows, 6, generator=generator, dtype=dtype)
    table = torch.randn(11, 6, generator=generator, dtype=dtype)
    items = torch.randint(10, (rows, width), generator=generator)  # item 10 is listed by nobody
    return hidden.requires_grad_(), table.requires_grad_(), items


@pytest.mark.parametrize("width", [1, 7, 8, 9, 40])
def test_products_and_gradients_are_those_of_one_item_after_the_other(width: int) -> None:
    hidden, table, items = made(5, width)
    found, wanted = listed_products(hidden, table, items), one_by_one(hidden, table, items)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(wanted)
    ours = torch.autograd.grad((found * weights).sum(), (hidden, table))
    theirs = torch.autograd.grad((wanted * weights).sum(), (hidden, table))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    assert not ours[1][10].any()


def test_a_table_or_states_without_gradient() -> None:
    hidden, table, items = made(4, 12)
    listed_products(hidden, table.detach(), items).sum().backward()
    assert hidden.grad is not None
    listed_products(hidden.detach(), table, items).sum().backward()
    assert table.grad is not None
    assert not listed_products(hidden.detach(), table.detach(), items).requires_grad


def test_parts_of_larger_tensors_are_read_where_they_lie() -> None:
    hidden, table, items = made(6, 9)
    wide = torch.cat([table, table], dim=1)[:, :6]
    torch.testing.assert_close(
        listed_products(hidden[::2], wide, items[::2]), one_by_one(hidden[::2], table, items[::2])
    )


def test_no_rows() -> None:
    hidden, table, items = made(3, 9)
    found = listed_products(hidden[:0], table, items[:0])
    assert found.shape == (0, 9)
    found.sum().backward()


def test_other_number_formats() -> None:
    hidden, table, items = made(5, 40, torch.float64)
    torch.testing.assert_close(listed_products(hidden, table, items), one_by_one(hidden, table, items))
    with torch.autocast("cpu", torch.bfloat16):
        assert listed_products(hidden.float(), table.float(), items).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("budget", "rows"), [(0, 1), (40, 4), (150, 15), (160, 16), (310, 16), (640, 64), (999, 96)]
)
def test_rows_fill_whole_tiles(budget: int, rows: int) -> None:
    assert rows_at_once(budget, 10) == rows
