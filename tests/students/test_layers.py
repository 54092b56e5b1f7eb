import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.students.layers import (
    CausalAttention,
    Dropout,
    FeedForward,
    Packing,
    real_positions,
    take_last,
)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_real_positions_and_take_last(lengths):
    lengths = torch.tensor(lengths)
    real = real_positions(lengths, 6)
    assert real.sum(1).tolist() == [max(n, 1) for n in lengths.tolist()]
    grid = torch.arange(len(lengths) * 6.0).view(-1, 6, 1)
    assert take_last(grid, lengths).flatten().tolist() == [
        6 * row + max(n, 1) - 1 for row, n in enumerate(lengths)
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_packing_moves_real_rows_there_and_back(lengths):
    lengths = torch.tensor(lengths)
    packing = Packing.of(lengths, 6)
    if packing is None:
        assert lengths.sum() >= 0.7 * 6 * len(lengths)
        return
    grid = torch.randn(len(lengths), 6, 3)
    packed = packing.pack(grid)
    assert packed.shape == (lengths.sum(), 3)
    assert torch.equal(packing.spread(packed), grid * real_positions(lengths, 6).unsqueeze(-1))


def test_packed_and_padded_attention_agree():
    attention = CausalAttention(8, 2, 0.0, output=True)
    lengths = torch.tensor([2, 6, 1])
    memory = torch.randn(3, 6, 8)
    packing = Packing.of(lengths, 6)
    assert packing is not None
    whole = attention(memory, memory)
    packed = packing.pack(memory)
    torch.testing.assert_close(attention(packed, packed, packing), packing.pack(whole))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_share_and_the_mean(probability):
    torch.manual_seed(0)
    dropout = Dropout(probability)
    values = torch.ones(401, 499)
    dropped = dropout(values)
    assert (dropped == 0).float().mean() == pytest.approx(probability, abs=0.005)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert dropped.unique() == pytest.approx([0, 1 / (1 - probability)], rel=1e-4)


def test_dropout_masks_values_and_gradients_alike_and_anew():
    dropout = Dropout(0.5)
    values = torch.ones(1000, requires_grad=True)
    dropped = dropout(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped)
    assert not torch.equal(dropout(values), dropped)


def test_dropout_is_off_in_evaluation_and_total_at_one():
    values = torch.randn(9, 9)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert (Dropout(1.0)(values) == 0).all()


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_dropout_refuses_what_is_no_probability(probability):
    with pytest.raises(ConfigError, match="Allowed: 0 to 1"):
        Dropout(probability)


def test_heads_must_divide_the_size():
    with pytest.raises(ConfigError, match="heads=3 does not divide embedding_size=8"):
        CausalAttention(8, 3, 0.0, output=False)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match=r"unknown activation 'gelo'. Did you mean 'gelu'"):
        FeedForward(4, 4, 0.0, "gelo")


@pytest.mark.parametrize("way", ["last", "all"])
def test_attention_dropout_drops_in_training(way):
    torch.manual_seed(0)
    attention = CausalAttention(8, 2, 0.5, output=False)
    memory, lengths = torch.randn(3, 6, 8), torch.tensor([6, 6, 6])

    def answer():
        return attention.last(memory[:, -1], memory, lengths) if way == "last" else attention(memory, memory)

    assert not torch.allclose(answer(), answer())
    attention.eval()
    assert torch.equal(answer(), answer())
