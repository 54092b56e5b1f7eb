from __future__ import annotations

import pytest
import torch

from recdistill.item_encoders.vectors import has_text, principal_components, standardised, unit_mean_norm


def vectors(items: int = 50, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    made = torch.randn(items, width, generator=generator) * torch.arange(1, width + 1) + 3
    made[7] = 0
    return made


def test_standardised_has_mean_zero_and_variance_one_where_there_is_text():
    given = vectors()
    result = standardised(given)
    text = has_text(given)
    assert text.tolist() == [item != 7 for item in range(50)]
    torch.testing.assert_close(result[text].mean(0), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(result[text].var(0, correction=0), torch.ones(6))
    assert (result[7] == 0).all()


def test_a_constant_dimension_becomes_zero():
    given = vectors()
    given[:, 2] = 5.0
    assert (standardised(given)[:, 2] == 0).all()


@pytest.mark.parametrize("rank", [1, 3, 6, 9])
def test_principal_components_equal_those_of_an_svd(rank):
    given = vectors()
    known = given[has_text(given)]
    centred = known - known.mean(0)
    sizes = torch.linalg.svd(centred, full_matrices=False).S[:rank]
    result = principal_components(given, rank, whiten=False)
    assert result.shape == (50, min(rank, 6))
    torch.testing.assert_close(result.norm(dim=0), sizes, rtol=1e-4, atol=1e-4)
    assert (result[7] == 0).all()


def test_whitened_components_have_variance_one_and_no_correlation():
    result = principal_components(vectors(), 4, whiten=True)[has_text(vectors())]
    torch.testing.assert_close(result.T @ result / len(result), torch.eye(4), atol=1e-4, rtol=0)


def test_the_randomised_method_agrees_with_the_exact_one_and_draws_nothing_of_the_callers(monkeypatch):
    given = vectors(200, 40)
    exact = principal_components(given, 5, whiten=False)
    monkeypatch.setattr("recdistill.item_encoders.vectors._EXACT_WIDTH", 8)
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    result = principal_components(given, 5, whiten=False)
    torch.testing.assert_close(result, exact, rtol=1e-2, atol=1e-2)
    assert torch.rand(1) == first
    assert torch.equal(principal_components(given, 5, whiten=False), result)


def test_mean_squared_length_becomes_one():
    result = unit_mean_norm(vectors())
    assert result[has_text(vectors())].square().sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)
