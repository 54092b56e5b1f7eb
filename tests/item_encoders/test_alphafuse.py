from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.item_encoders import AlphaFuse, fold
from references import item_encoders as naive

ITEMS, WIDTH, SIZE = 30, 12, 6


def teacher(items: int = ITEMS, width: int = WIDTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    made = torch.randn(items, width, generator=generator) * torch.linspace(5, 0.5, width) + 1
    made[5] = 0
    return made


OPTIONS = [{}, {"cover": True}, {"null_size": 2}, {"null_size": SIZE, "cover": True}, {"learn_scale": True}]


@pytest.mark.parametrize("options", OPTIONS)
def test_it_is_the_naive_table(options):
    torch.manual_seed(0)
    made = AlphaFuse(ITEMS, SIZE, teacher(), std=0.3, scale=0.5, **options)
    ids = made.offsets.detach().double().numpy()
    found = made.table().detach().double().numpy()
    settings = {"cover": options.get("cover", False), "scale": 0.5}
    expected = naive.alphafuse(teacher(), ids, SIZE, **settings)
    blank = np.zeros_like(ids)
    text, text_found = naive.alphafuse(teacher(), blank, SIZE, **settings), found.copy()
    text_found[:, SIZE - ids.shape[1] :] -= ids
    aligned = naive.up_to_signs(text_found, text)
    np.testing.assert_allclose(aligned, text, atol=1e-4)
    aligned[:, SIZE - ids.shape[1] :] += ids
    np.testing.assert_allclose(aligned, expected, atol=1e-4)


def test_ids_are_learned_in_the_directions_of_least_variance_alone():
    made = AlphaFuse(ITEMS, SIZE, teacher(), null_size=2)
    before = made.table().detach().clone()
    (made(torch.tensor([3, 5, 3])) * torch.randn(3, SIZE)).sum().backward()
    assert [name for name, _ in made.named_parameters()] == ["offsets"]
    assert made.offsets.grad.abs().sum(1).nonzero().flatten().tolist() == [3, 5]
    torch.optim.SGD(made.parameters(), lr=1.0).step()
    moved = (made.table() - before).abs() > 0
    assert not moved[:, : SIZE - 2].any()
    assert moved[[3, 5], SIZE - 2 :].all()


@pytest.mark.parametrize("options", OPTIONS)
def test_some_items_equal_rows_of_the_table_and_of_the_folded_table(options):
    made = AlphaFuse(ITEMS, SIZE, teacher(), std=0.1, **options)
    items = torch.tensor([3, 5, 3, 0, 29, 5])
    torch.testing.assert_close(made(items), made.table()[items], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fold(made)(items), made(items), atol=1e-5, rtol=1e-5)


def test_whitened_columns_have_the_asked_scale_and_no_correlation():
    made = AlphaFuse(ITEMS, SIZE, teacher(), scale=0.2)
    text = made.table().detach()[[item for item in range(ITEMS) if item != 5]]
    torch.testing.assert_close(text.T @ text / len(text), 0.04 * torch.eye(SIZE), atol=1e-4, rtol=0)


def test_a_direction_without_variance_is_zero_and_missing_ones_belong_to_the_ids():
    """Ten copies of three directions: the inverse square root of a zero eigenvalue would be infinite."""
    flat = torch.randn(ITEMS, 3) @ torch.randn(3, WIDTH)
    made = AlphaFuse(ITEMS, SIZE, flat, null_size=3)
    assert made.table().isfinite().all()
    assert made.table()[:, 3:].abs().max() == 0
    narrow = AlphaFuse(ITEMS, SIZE, teacher(width=4), null_size=2)
    assert narrow.table().shape == (ITEMS, SIZE)
    assert narrow.table()[:, 4:].abs().max() == 0


def test_an_item_without_text_has_its_id_alone_and_a_cold_item_its_text_alone():
    cold = torch.zeros(ITEMS, dtype=torch.bool)
    cold[[2, 7]] = True
    made = AlphaFuse(ITEMS, SIZE, teacher(), std=0.5, null_size=2, cold=cold.numpy())
    torch.testing.assert_close(made.table()[5, SIZE - 2 :], made.offsets[5])
    assert made.table()[5, : SIZE - 2].abs().max() == 0
    made.table().sum().backward()
    assert made.offsets.grad[[2, 7]].abs().max() == 0
    made.offsets.data.add_(9.0)
    torch.testing.assert_close(made.table()[[2, 7]], made.semantic[[2, 7]])


def test_the_text_is_not_saved_and_a_learned_scale_is():
    assert list(AlphaFuse(ITEMS, SIZE, teacher()).state_dict()) == ["offsets"]
    learned = AlphaFuse(ITEMS, SIZE, teacher().half(), learn_scale=True)
    assert sorted(learned.state_dict()) == ["offsets", "scale"]
    learned.table().square().sum().backward()
    assert learned.scale.grad.abs() > 0


def test_refuses():
    for options in ({"null_size": 0}, {"null_size": 7}, {"scale": 0.0}, {"std": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            AlphaFuse(ITEMS, SIZE, teacher(), **options)
    with pytest.raises(KnowledgeError, match=r"\(30, 12\).*\(31, D\)"):
        AlphaFuse(31, SIZE, teacher())
