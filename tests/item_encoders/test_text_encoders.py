"""Text alone, and ids and text side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.item_encoders import AlphaFuse, Collaborative, TextOnly, TwoBranch, centred, fold, lengthened
from recdistill.students import SASRec, SequenceModel, Twin
from references import item_encoders as naive

ITEMS, SIZE = 30, 6


def teacher(items: int = ITEMS, width: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    made = torch.randn(items, width, generator=generator) * torch.linspace(5, 0.5, width) + 1
    made[5] = 0
    return made


MAKES = [
    lambda **o: TextOnly(ITEMS, SIZE, teacher(), **o),
    lambda **o: TextOnly(ITEMS, SIZE, teacher(), projector="linear", **o),
    lambda **o: TextOnly(ITEMS, SIZE, teacher(), rank=3, hidden=5, **o),
    lambda **o: TwoBranch(ITEMS, SIZE, teacher(), **o),
    lambda **o: TwoBranch(ITEMS, SIZE, teacher(), text_size=2, rank=4, projector="linear", **o),
]


@pytest.mark.parametrize("make", MAKES)
def test_some_items_equal_rows_of_the_table_and_of_the_folded_table(make):
    made = make()
    items = torch.tensor([3, 5, 3, 0, 29, 5])
    assert made.table().shape == (ITEMS, SIZE)
    torch.testing.assert_close(made(items), made.table()[items], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fold(made)(items), made(items), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", MAKES)
def test_it_starts_with_the_asked_spread(make):
    torch.manual_seed(0)
    text = [item for item in range(ITEMS) if item != 5]
    assert make(std=0.05).table()[text].square().mean().sqrt().item() == pytest.approx(0.05, rel=0.15)


def test_text_only_is_a_small_network_on_whitened_text():
    made = TextOnly(ITEMS, SIZE, teacher(), rank=4, std=0.3)
    for parameter in made.parameters():
        parameter.data.normal_()
    expected = naive.whitened(teacher(), 4)
    expected /= np.sqrt((expected**2).sum() / (ITEMS - 1))
    text = naive.up_to_signs(made.teacher.double().numpy(), expected)
    np.testing.assert_allclose(text, expected, atol=1e-5)
    inner = torch.relu(made.teacher @ made.entry.weight.T + made.entry.bias)
    table = inner @ made.exit.weight.T + made.exit.bias
    table[5] = 0
    torch.testing.assert_close(made.table(), table)


def test_text_only_owns_nothing_of_a_single_item():
    """An item that nobody has bought is formed like any other: equal texts have equal vectors."""
    twice = torch.cat([teacher(), teacher()])
    made = TextOnly(2 * ITEMS, SIZE, twice)
    (made(torch.arange(ITEMS)) ** 2).sum().backward()
    torch.optim.SGD(made.parameters(), lr=0.1).step()
    torch.testing.assert_close(made.table()[:ITEMS], made.table()[ITEMS:])
    assert all(len(parameter) < ITEMS for parameter in made.parameters())


def test_scores_of_two_branches_are_the_sum_of_two_scores():
    torch.manual_seed(1)
    made = TwoBranch(ITEMS, SIZE, teacher(), text_size=2, std=0.5)
    hidden = torch.randn(4, SIZE)
    expected = hidden[:, :4] @ made.offsets.T + hidden[:, 4:] @ made.branch.table().T
    torch.testing.assert_close(hidden @ made.table().T, expected)
    torch.testing.assert_close(hidden @ fold(made).table().T, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("branch", ["sasrec", "gru4rec"])
def test_a_twin_is_two_students_whose_scores_are_added(branch):
    torch.manual_seed(2)
    table = TwoBranch(ITEMS, 8, teacher(), std=0.5)
    twin = Twin(embedding_size=8, max_length=5, branch=branch).eval()
    whole = SequenceModel(twin, table, table, bias=False).eval()
    history = torch.tensor([[1, 2, 3, -1, -1], [4, 7, 9, 2, 0]])
    lengths = torch.tensor([3, 5])
    halves = table(history.clamp_min(0).flatten()).view(2, 5, 8) * (history >= 0).unsqueeze(2)
    ids = twin.first.last(halves[..., :4], lengths) @ table.offsets.T
    text = twin.second.last(halves[..., 4:], lengths) @ table.branch.table().T
    torch.testing.assert_close(whole.score(history), ids + text, atol=1e-5, rtol=1e-5)


def test_the_branches_of_a_twin_know_nothing_of_each_other():
    twin = Twin(embedding_size=8, max_length=5).eval()
    embedded = torch.randn(1, 5, 8, requires_grad=True)
    twin(embedded, torch.tensor([5]))[..., :4].sum().backward()
    assert embedded.grad[..., :4].abs().sum() > 0
    assert embedded.grad[..., 4:].abs().max() == 0


def test_a_twin_refuses():
    for options in ({"branch": "caser"}, {"text_size": 8}, {"text_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Twin(embedding_size=8, **options)
    assert Twin(embedding_size=8, text_size=2).second.embedding_size == 2
    assert isinstance(Twin(embedding_size=8, dropout=0.4, options={"blocks": 1}).first, SASRec)


COLD = torch.arange(ITEMS) % 7 == 2


@pytest.mark.parametrize("kind", [Collaborative, TwoBranch])
def test_a_cold_item_has_its_text_alone_now_and_after_training(kind):
    torch.manual_seed(3)
    made = kind(ITEMS, SIZE, teacher(), std=0.5, cold=COLD)
    assert made.offsets[COLD].abs().max() == 0
    assert (made.offsets[~COLD].abs().sum(1) > 0).all()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(5):
        loss = (made.table() - 1).square().sum() + made(torch.arange(ITEMS)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert made.offsets[COLD].abs().max() == 0
    text = made.weight * made._text(None) if kind is Collaborative else made.branch.table()
    cold_rows = made.table()[COLD]
    torch.testing.assert_close(cold_rows if kind is Collaborative else cold_rows[:, SIZE // 2 :], text[COLD])
    torch.testing.assert_close(made(torch.arange(ITEMS)), made.table(), atol=1e-6, rtol=1e-5)
    # whatever a file holds for it does not matter
    made.offsets.data[COLD] = 7.0
    torch.testing.assert_close(made.table()[COLD], cold_rows)


@pytest.mark.parametrize("kind", [AlphaFuse, Collaborative, TextOnly, TwoBranch])
@pytest.mark.parametrize("length", [1.0, 1.7])
def test_cold_items_of_a_folded_table_are_as_long_as_the_others(kind, length):
    torch.manual_seed(3)
    made = kind(ITEMS, SIZE, teacher(), std=0.5, cold=COLD, cold_length=length)
    before, after = made.table().detach(), fold(made).table().detach()
    torch.testing.assert_close(after[~COLD], before[~COLD])
    known = COLD & (before.norm(dim=1) > 0)
    warm = before[~COLD].norm(dim=1)
    warm = warm[warm > 0].mean()
    torch.testing.assert_close(after[known].norm(dim=1).mean(), length * warm)
    factors = after[known] / before[known]
    kept = factors[before[known] != 0]
    torch.testing.assert_close(kept, kept[0].expand_as(kept))  # one number for all: directions stay


def agreement(rows):
    """Return 1 where all rows lie in one direction, about n^-1/2 where they have nothing in common."""
    return torch.nn.functional.normalize(rows).mean(0).norm()


def test_cold_items_whose_texts_have_much_in_common_do_not_lie_in_one_direction():
    torch.manual_seed(0)
    table, share = (
        torch.randn(40, 8),
        0.01 * torch.randn(40, 8) + 0.1,
    )  # nearly all of a text is what all texts say
    warm = torch.ones(40, 1, dtype=torch.bool)
    warm[:6] = False
    table[:6] = share[:6]
    assert agreement(lengthened(table, warm)[:6]) > 0.95
    placed = centred(table, share, warm)
    assert agreement(placed[:6]) < 0.8
    assert torch.equal(placed[6:], table[6:])
    far = (placed[:6] - table[6:].mean(0)).norm(dim=1).mean()
    torch.testing.assert_close(
        far / (table[6:] - table[6:].mean(0)).norm(dim=1).mean(), torch.tensor(1.0), atol=0.3, rtol=0
    )
    twice = centred(table, share, warm, 2.0)
    torch.testing.assert_close(twice[:6] - table[6:].mean(0), 2 * (placed[:6] - table[6:].mean(0)))


def test_where_no_text_tells_items_apart_nothing_is_moved():
    table, warm = torch.randn(5, 3), torch.tensor([[True], [True], [True], [False], [False]])
    nothing = torch.zeros(5, 3)
    assert torch.equal(centred(table, nothing, warm), table)
    same = torch.ones(5, 3)
    same[4] = 0  # no text: its vector stays
    placed = centred(table, same, warm)
    torch.testing.assert_close(placed[3], table[:3].mean(0))
    assert torch.equal(placed[4], table[4])


def test_tables_in_which_nothing_can_be_lengthened():
    table, warm = torch.randn(4, 3), torch.tensor([[True], [True], [False], [True]])
    assert lengthened(table, None) is table
    table[2] = 0
    assert torch.equal(lengthened(table, warm), table)  # the only cold item has no text
    table[:] = 0
    table[2] = 1
    assert torch.equal(lengthened(table, warm), table)  # nothing to be as long as
    assert torch.equal(lengthened(table, torch.zeros(4, 1, dtype=torch.bool)), table)


def test_without_cold_items_nothing_changes():
    torch.manual_seed(3)
    plain = Collaborative(ITEMS, SIZE, teacher())
    torch.manual_seed(3)
    told = Collaborative(ITEMS, SIZE, teacher(), cold=torch.zeros(ITEMS, dtype=torch.bool))
    assert told.warm is None
    torch.testing.assert_close(told.table(), plain.table())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Collaborative, {"cold": COLD, "rank": 5}),
        (Collaborative, {"projector": "mlp", "offset": False, "standardise": False}),
        (TextOnly, {"rank": 5}),
        (TextOnly, {"projector": "linear"}),
    ],
)
def test_resized_is_a_new_one_of_the_same_make_that_shares_the_teacher(kind, options):
    made = kind(ITEMS, SIZE, teacher(), **options)
    torch.manual_seed(8)
    expected = kind(ITEMS, 9, teacher(), **options)
    torch.manual_seed(8)
    found = made.resized(9)
    assert found.size == 9
    assert found.teacher is made.teacher
    torch.testing.assert_close(found.table(), expected.table())
    assert {k: v.shape for k, v in found.state_dict().items()} == {
        k: v.shape for k, v in expected.state_dict().items()
    }
    found.entry.weight.data.zero_()
    assert made.entry.weight.abs().sum() > 0


def test_refuses():
    for options in ({"projector": "tree"}, {"rank": 0}, {"hidden": 0}, {"std": 0.0}, {"cold_length": 0.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} of item encoder text_only"):
            TextOnly(ITEMS, SIZE, teacher(), **options)
    for options in ({"text_size": 0}, {"text_size": SIZE}, {"std": 0.0}):
        with pytest.raises(ConfigError, match=f"{next(iter(options))} of item encoder two_branch"):
            TwoBranch(ITEMS, SIZE, teacher(), **options)
    with pytest.raises(KnowledgeError, match=r"\(31, D\)"):
        TextOnly(31, SIZE, teacher())
