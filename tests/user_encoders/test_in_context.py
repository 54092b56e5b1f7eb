"""The decoder: its formulas, its causality, and what may not be read."""

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.user_encoders.in_context import InContextDecoder, rotated
from references.in_context import naive_decoder


def decoder(size=16, **options):
    torch.manual_seed(0)
    made = InContextDecoder(size, **{"dropout": 0.0, **options})
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return made.eval()


def test_it_is_the_naive_formula():
    made = decoder()
    tokens = torch.randn(3, 13, 16)
    there = torch.rand(3, 13) < 0.7
    found = made(tokens, there)
    for row in range(3):
        assert found[row].detach().numpy() == pytest.approx(
            naive_decoder(made, tokens[row], there[row]).detach().numpy(), abs=2e-5
        )


def test_the_fourth_example_does_not_change_the_first_three():
    made, tokens = decoder(), torch.randn(5, 13, 16)
    changed = tokens.clone()
    changed[:, 9:12] += 1.0
    there = torch.ones(5, 13, dtype=torch.bool)
    before, after = made(tokens, there), made(changed, there)
    assert torch.equal(before[:, :9], after[:, :9])
    assert (before[:, 12] - after[:, 12]).abs().max() > 1e-3


def test_what_is_not_there_is_not_read():
    made, tokens = decoder(), torch.randn(4, 13, 16)
    there = torch.ones(4, 13, dtype=torch.bool)
    there[:, 6:12] = False
    changed = tokens.clone()
    changed[:, 6:12] = 100.0
    before, after = made(tokens, there), made(changed, there)
    assert torch.equal(before[:, 12], after[:, 12])
    assert torch.isfinite(after).all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_wanted_places_get_the_states_and_gradients_of_all_places(blocks):
    made, there = decoder(blocks=blocks), torch.rand(5, 13) < 0.7
    wanted, weights = torch.tensor([0, 3, 6, 9, 12]), torch.randn(5, 5, 16)
    found = {}
    for name in ("all", "some"):
        made.zero_grad()
        tokens = torch.randn(5, 13, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
        states = made(tokens, there)[:, wanted] if name == "all" else made(tokens, there, wanted)
        (states * weights).sum().backward()
        found[name] = [states, tokens.grad, *(p.grad.clone() for p in made.parameters())]
    for one, other in zip(*found.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_gradient_of_a_turn_is_that_of_its_formula():
    values = torch.randn(2, 5, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotated(x, torch.tensor([0, 3, 1, 12, 7])), values, atol=1e-5)


def test_order_counts():
    made, tokens = decoder(), torch.randn(4, 13, 16)
    there = torch.ones(4, 13, dtype=torch.bool)
    swapped = tokens[:, [3, 4, 5, 0, 1, 2, *range(6, 13)]]
    assert (made(tokens, there)[:, 12] - made(swapped, there)[:, 12]).abs().max() > 1e-3


def test_dropout_acts_in_training_only():
    made, tokens, there = decoder(dropout=0.5), torch.randn(4, 13, 16), torch.ones(4, 13, dtype=torch.bool)
    assert torch.equal(made(tokens, there), made(tokens, there))
    made.train()
    assert not torch.equal(made(tokens, there), made(tokens, there))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"heads": 16}, {"blocks": 0}, {"dropout": 1.0}])
def test_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="is not possible"):
        InContextDecoder(16, **wrong)
