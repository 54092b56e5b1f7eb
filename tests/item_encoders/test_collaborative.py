from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.item_encoders import ITEM_ENCODERS, Collaborative, Ids, fold
from recdistill.item_encoders.projection import project_rows
from recdistill.item_encoders.vectors import standardised, unit_mean_norm


def teacher(items: int = 30, width: int = 12) -> torch.Tensor:
    made = torch.randn(items, width, generator=torch.Generator().manual_seed(4)) * 10 + 1
    made[5] = 0
    return made


def encoder(**options) -> Collaborative:
    torch.manual_seed(1)
    return Collaborative(30, 4, teacher(), **options)


OPTIONS = [
    {},
    {"offset": False},
    {"projector": "mlp"},
    {"projector": "mlp", "hidden": 3, "offset": False},
    {"standardise": False, "weight": 0.3},
    {"rank": 5},
    {"dtype": "bfloat16"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_some_items_equal_rows_of_the_table_and_of_the_folded_table(options):
    made = encoder(**options)
    items = torch.tensor([3, 5, 3, 0, 29, 5])
    table = made.table()
    assert table.shape == (30, 4)
    torch.testing.assert_close(made(items), table[items], atol=1e-5, rtol=1e-5)
    folded = fold(made)
    assert isinstance(folded, Ids)
    torch.testing.assert_close(folded(items), made(items), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(folded.table(), table, atol=1e-5, rtol=0)


def test_equation_13_without_standardisation():
    made = encoder(standardise=False, weight=0.3)
    expected = made.offsets + 0.3 * linear(teacher(), made.entry.weight, made.entry.bias)
    expected[5] = made.offsets[5]
    torch.testing.assert_close(made.table(), expected)


def test_equation_13_with_an_mlp():
    made = encoder(projector="mlp", weight=0.5)
    hidden = linear(unit_mean_norm(standardised(teacher())), made.entry.weight, made.entry.bias).relu()
    expected = made.offsets + 0.5 * linear(hidden, made.exit.weight, made.exit.bias)
    expected[5] = made.offsets[5]
    torch.testing.assert_close(made.table(), expected)


@pytest.mark.parametrize("options", [{}, {"projector": "mlp"}, {"rank": 5}, {"weight": 2.0, "std": 0.1}])
def test_both_terms_start_equally_large(options):
    made = encoder(**options)
    text = (made.table() - made.offsets)[made.text]
    assert text.square().mean().sqrt().item() == pytest.approx(options.get("std", 0.01), rel=1e-4)


def test_an_item_without_text_has_its_offset_alone_whatever_the_bias():
    made = encoder()
    made.entry.bias.data.fill_(7.0)
    torch.testing.assert_close(made.table()[5], made.offsets[5])
    bare = encoder(offset=False)
    bare.entry.bias.data.fill_(7.0)
    assert (bare(torch.tensor([5])) == 0).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_equal_those_of_the_plain_formula(options):
    made = encoder(**options)
    items = torch.tensor([3, 5, 3, 0, 29, 5])
    upstream = torch.randn(6, 4)
    (made(items) * upstream).sum().backward()
    found = {name: p.grad.clone() for name, p in made.named_parameters()}
    made.zero_grad()
    text = linear(made.teacher.float(), made.entry.weight, made.entry.bias)
    if made.exit is not None:
        text = linear(text.relu(), made.exit.weight, made.exit.bias)
    text = made.weight * text * made.text.unsqueeze(1)
    table = text if made.offsets is None else made.offsets + text
    (table[items] * upstream).sum().backward()
    tolerance = 2e-2 if "dtype" in options else 1e-5
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("budget", [1, 3 * 12 * 4, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_projection_in_chunks(monkeypatch, budget, dtype):
    monkeypatch.setattr("recdistill.item_encoders.projection._CHUNK_BYTES", {"cpu": budget, "cuda": budget})
    table, weight = teacher().to(dtype), torch.randn(4, 12, requires_grad=True)
    rows, upstream = torch.tensor([8, 1, 2, 20, 8, 0, 11]), torch.randn(7, 4)
    result = project_rows(table, weight, rows)
    (found,) = torch.autograd.grad((result * upstream).sum(), weight)
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.5, "rtol": 2e-2}
    expected = table.float()[rows] @ weight.T
    torch.testing.assert_close(result, expected, **tolerance)
    torch.testing.assert_close(
        found, torch.autograd.grad((expected * upstream).sum(), weight)[0], **tolerance
    )
    assert result.dtype == found.dtype == torch.float32


def test_projection_of_no_rows():
    weight = torch.randn(4, 12, requires_grad=True)
    result = project_rows(teacher(), weight, torch.empty(0, dtype=torch.int64))
    result.sum().backward()
    assert result.shape == (0, 4)
    assert (weight.grad == 0).all()


def test_the_teachers_vectors_are_not_saved_and_take_no_gradient():
    made = encoder()
    assert sorted(made.state_dict()) == ["entry.bias", "entry.weight", "offsets"]
    assert not made.teacher.requires_grad


def test_half_precision_vectors_are_accepted():
    made = Collaborative(30, 4, teacher().half())
    assert made.teacher.dtype == torch.float32
    assert Collaborative(30, 4, teacher(), dtype="bfloat16").teacher.dtype == torch.bfloat16


def test_no_text_at_all_leaves_the_offsets():
    made = Collaborative(3, 2, torch.zeros(3, 5))
    torch.testing.assert_close(made.table(), made.offsets)


def test_offset_dropout_leaves_out_whole_offsets_in_training_alone():
    made = encoder(offset_dropout=0.4)
    plain = encoder()
    torch.testing.assert_close(made.eval().table(), plain.table())
    text = (plain.table() - plain.offsets).detach()
    made.train()
    tables = torch.stack([made.table().detach() for _ in range(200)])  # (200, I, d)
    left_out = (tables - text).norm(dim=2) < 1e-6
    whole = (tables - text - plain.offsets.detach()).norm(dim=2) < 1e-6
    assert bool((left_out | whole).all())
    assert 0.35 < left_out.float().mean() < 0.45
    items = torch.tensor([3, 3, 7])
    pair = made(items)
    assert torch.equal(pair[0], pair[1])  # one draw an item and call


def test_cold_vectors_keep_the_length_that_offset_dropout_taught_them():
    cold = torch.zeros(30, dtype=torch.bool)
    cold[7] = True
    kept = fold(encoder(offset_dropout=0.4, cold=cold)).weight[7]
    stretched = fold(encoder(cold=cold)).weight[7]
    torch.testing.assert_close(kept, encoder(cold=cold).table()[7])
    assert stretched.norm() > 1.1 * kept.norm()


@pytest.mark.parametrize(
    "options",
    [
        {"projector": "tree"},
        {"dtype": "int8"},
        {"weight": 0.0},
        {"rank": 0},
        {"hidden": -1},
        {"offset_dropout": 1.0},
        {"offset_dropout": -0.1},
        {"offset_dropout": 0.1, "offset": False},
    ],
)
def test_refuses_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        encoder(**options)


def test_refuses_vectors_that_do_not_fit():
    with pytest.raises(KnowledgeError, match=r"\(30, 12\).*\(31, D\)"):
        Collaborative(31, 4, teacher())
    broken = teacher()
    broken[9, 1] = float("nan")
    with pytest.raises(KnowledgeError, match="item 9"):
        Collaborative(30, 4, broken)


def test_ids_are_drawn_with_the_asked_spread_and_wrap_a_table():
    torch.manual_seed(0)
    ids = Ids(400, 16, std=0.3)
    assert ids.table().std().item() == pytest.approx(0.3, rel=0.05)
    torch.testing.assert_close(ids(torch.tensor([3, 3])), ids.weight[[3, 3]])
    table = torch.randn(5, 2)
    wrapped = Ids.from_table(table)
    assert (wrapped.item_count, wrapped.size) == (5, 2)
    assert torch.equal(wrapped.table(), table)


def test_folding_copies():
    ids = Ids(5, 2)
    folded = fold(ids)
    before = folded.table().clone()
    ids.weight.data.add_(1)
    assert torch.equal(folded.table(), before)
    assert ids.training


def test_table_of_encoders():
    assert {ITEM_ENCODERS["collaborative"], ITEM_ENCODERS["ids"]} == {Collaborative, Ids}
    assert sorted(ITEM_ENCODERS) == ["alphafuse", "collaborative", "ids", "text_only", "two_branch"]
    assert Collaborative.requires == {"item_embeddings"}
    assert not Ids.requires
