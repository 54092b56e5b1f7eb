"""The best items are the best items: every path against a sort of all scores, at the edges of the bound too."""

from __future__ import annotations

import numpy as np
import pytest

from recdistill.serve.prefilter import ROWS, Prefilter, rows_are_exact
from recdistill.serve.scorer import Scorer
from recdistill.serve.table import ItemTable


def table_of(random: np.random.Generator, count: int, kind: str, bias: bool, width: int = 16) -> ItemTable:
    values = random.standard_normal((count, width)) * random.lognormal(0, 1, (count, 1))
    values[:5] = values[min(5, count - 1)]  # equal items: the smaller index first
    biases = random.standard_normal(count).astype(np.float32) * 3 if bias else None
    if kind == "int8":
        scale = np.abs(values).max(1) / 127
        return ItemTable(np.rint(values / scale[:, None]).astype(np.int8), scale, biases)
    return ItemTable(values.astype(kind), None, biases)


def by_hand(
    table: ItemTable, hidden: np.ndarray, k: int, banned: np.ndarray, among: np.ndarray | None
) -> list[int]:
    vectors = table.values.astype(np.float64)
    if table.scale is not None:
        vectors = (table.values.astype(np.float32) * table.scale[:, None]).astype(np.float64)
    scores = vectors @ hidden.astype(np.float64) + (0 if table.bias is None else table.bias)
    scores = np.array([float(np.float64(score)) for score in scores])
    allowed = set(range(len(scores)) if among is None else among.tolist()) - set(banned.tolist())
    return sorted(allowed, key=lambda item: (-round(scores[item], 9), item))[:k]


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 31, 333, 3000])
def test_every_path_equals_a_sort(kind: str, bias: bool, count: int) -> None:
    random = np.random.default_rng(count)
    table = table_of(random, count, kind, bias)
    fast, slow = Scorer(table), Scorer(table, prefilter=False)
    for k in {1, min(5, count), min(count, 60), count}:
        hidden = random.standard_normal((3, 16)).astype(np.float32) * random.lognormal(0, 2)
        banned = [random.integers(0, count, random.integers(0, 12)) for _ in hidden]
        small = np.unique(random.integers(0, count, max(1, count // 40)))
        large = np.unique(random.integers(0, count, count))
        for among in (None, small, large):
            wanted = [by_hand(table, row, k, out, among) for row, out in zip(hidden, banned, strict=True)]
            for scorer in (fast, slow):
                found = scorer.top(hidden, k, banned=banned, among=among)
                assert [one.items.tolist() for one in found] == wanted


def test_a_hidden_state_of_zeros_and_a_table_of_zeros() -> None:
    table = ItemTable(np.zeros((500, 4), dtype=np.float32))
    assert Scorer(table).top(np.zeros((1, 4), np.float32), 3)[0].items.tolist() == [0, 1, 2]


def test_everything_banned() -> None:
    table = ItemTable(np.ones((100, 4), dtype=np.float32))
    for scorer in (Scorer(table), Scorer(table, prefilter=False)):
        assert len(scorer.top(np.ones((1, 4), np.float32), 3, banned=[np.arange(100)])[0].items) == 0
        assert scorer.top(np.ones((1, 4), np.float32), 3, banned=[np.arange(98)])[0].items.tolist() == [
            98,
            99,
        ]


@pytest.mark.parametrize("levels", [63, 127])
def test_the_bound_holds_and_few_are_left(levels: int) -> None:
    random = np.random.default_rng(7)
    table = ItemTable(random.standard_normal((20_000, 32)).astype(np.float32))
    prefilter = Prefilter(table, levels=levels)
    hidden = random.standard_normal((1, 32)).astype(np.float32)
    found = prefilter.candidates(hidden, 20, [np.zeros(0, dtype=np.int64)])[0]
    wanted = np.argsort(-(table.values @ hidden[0]))[:20]
    assert set(wanted.tolist()) <= set(found.tolist())
    assert len(found) < 400
    assert len(np.unique(found)) == len(found)


def test_the_error_of_every_score_is_within_its_bound() -> None:
    random = np.random.default_rng(3)
    values = (random.standard_normal((640, 8)) * random.lognormal(0, 2, (640, 1))).astype(np.float32)
    table = ItemTable(values, None, random.standard_normal(640).astype(np.float32))
    prefilter = Prefilter(table)
    hidden = random.standard_normal((1, 8)).astype(np.float32)
    work = prefilter._workspace(1)
    norm, unit, loss = prefilter._round(hidden, work.steps)
    vectors = table.vectors(np.arange(640), prefilter.bias_unit).astype(np.float64)
    state = np.append(hidden[0], prefilter.bias_unit)
    column = prefilter.place % prefilter.columns
    step = prefilter.step[column][:, None]
    rounded = np.clip(np.rint(vectors / step), -127, 127) * step
    steps = (work.steps[0].astype(np.float64) - prefilter.levels - 1) * unit[0]
    error = np.abs(vectors @ state - rounded @ steps)
    bound = prefilter.error[column] * norm[0] + prefilter.norm[column] * loss[0]
    assert (error <= bound * (1 + 1e-4) + 1e-6).all()
    assert ROWS * prefilter.columns >= 640


def test_a_table_that_needs_several_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    table = ItemTable(random.standard_normal((1000, 8)).astype(np.float32))
    hidden = random.standard_normal((2, 8)).astype(np.float32)
    wanted = [one.items.tolist() for one in Scorer(table).top(hidden, 10)]
    monkeypatch.setattr("recdistill.serve.prefilter.LARGEST", 8 * 300)
    scorer = Scorer(table)
    assert scorer.prefilter is not None
    assert len(scorer.prefilter._products) == 4
    assert [one.items.tolist() for one in scorer.top(hidden, 10)] == wanted


needs_rows = pytest.mark.skipif(
    not rows_are_exact(32, 1), reason="this onnxruntime does not read rows of 8 bits"
)


@needs_rows
@pytest.mark.parametrize(("width", "bias"), [(32, False), (63, True), (16, False)])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_large_table_is_read_row_by_row_with_the_same_candidates(width: int, bias: bool, rows: int) -> None:
    random = np.random.default_rng(width)
    table = table_of(random, 3001, "float32", bias, width)
    small, large = Prefilter(table, levels=127), Prefilter(table, large=0)
    assert (small.kinds[1], large.kinds[1]) == (np.int32, np.float32)
    hidden = random.standard_normal((rows, width)).astype(np.float32)
    banned = [random.integers(0, 3001, 9) for _ in range(rows)]
    allowed = random.random(3001) < 0.7
    for among in (None, allowed):
        for one, other in zip(
            small.candidates(hidden, 10, banned, among),
            large.candidates(hidden, 10, banned, among),
            strict=True,
        ):
            assert one.tolist() == other.tolist()


@needs_rows
def test_a_large_table_in_several_graphs_and_a_state_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.serve.prefilter.LARGEST", 32 * 500)
    random = np.random.default_rng(1)
    table = table_of(random, 1700, "float32", False, 32)
    cut, whole = Prefilter(table, large=0), Prefilter(table)
    assert len(cut._products) > 3
    for hidden in (random.standard_normal((1, 32)).astype(np.float32), np.zeros((1, 32), np.float32)):
        nothing = [np.zeros(0, dtype=np.int64)]
        assert (
            cut.candidates(hidden, 5, nothing)[0].tolist() == whole.candidates(hidden, 5, nothing)[0].tolist()
        )


def test_rows_that_would_be_mostly_padding_are_multiplied_the_other_way() -> None:
    assert not rows_are_exact(65, 1)
    assert not rows_are_exact(257, 1)
