from __future__ import annotations

import numpy as np
import pytest

from recdistill.errors import ConfigError, DataError
from recdistill.knowledge import (
    Knowledge,
    all_rows,
    budget_rows,
    confident,
    hard_band,
    max_min_policy,
    random_rows,
    read_row_ids,
    write_row_ids,
)
from references import selection as naive

ROWS = np.arange(100, 160)[::-1].copy()  # in no order that counts


def test_all_rows():
    assert all_rows(ROWS).tolist() == list(range(100, 160))


def test_random_rows_are_a_share_and_the_same_for_a_seed():
    first = random_rows(ROWS, 0.25, seed=3)
    assert len(first) == len(set(first.tolist())) == 15
    assert set(first) <= set(ROWS)
    assert (np.diff(first) > 0).all()
    assert random_rows(ROWS, 0.25, seed=3).tolist() == first.tolist()
    assert random_rows(ROWS, 0.25, seed=4).tolist() != first.tolist()
    assert random_rows(ROWS, 1.0).tolist() == all_rows(ROWS).tolist()


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("centre", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("asked", [True, False])
def test_the_band_is_the_naive_one(share, centre, asked):
    rng = np.random.default_rng(0)
    student = rng.integers(0, 25, len(ROWS))  # with ties
    teacher = rng.integers(-1, 25, len(ROWS)) if asked else None
    found = hard_band(ROWS, student, share=share, centre=centre, teacher_ranks=teacher)
    expected = naive.band(
        ROWS.tolist(), student.tolist(), share, centre, None if teacher is None else teacher.tolist()
    )
    assert found.tolist() == expected


def test_the_band_holds_the_middle_and_what_the_teacher_solves():
    student = np.arange(60) * 10
    middle = hard_band(ROWS, student, share=0.1)
    assert sorted(ROWS[27:33].tolist()) == middle.tolist()
    teacher = np.where(np.arange(60) % 2 == 0, 0, 10_000)
    solved = hard_band(ROWS, student, share=0.1, teacher_ranks=teacher)
    at = np.flatnonzero(np.isin(ROWS, solved))
    assert (teacher[at] < student[at]).all()
    assert len(hard_band(ROWS, student, share=0.5, teacher_ranks=np.full(60, -1))) == 0


def test_confident_rows_are_the_nearest_and_unknown_ones_are_never_taken():
    distance = np.linspace(5, 1, 60)
    distance[[3, 59]] = np.nan
    found = confident(ROWS, distance, 0.1)
    assert found.tolist() == sorted(ROWS[53:59].tolist())
    assert len(confident(ROWS, distance, 1.0)) == 58


@pytest.mark.parametrize("count", [1, 7, 40, 300])
@pytest.mark.parametrize(("effective", "similar"), [(0.1, 0.5), (0.3, 0.3), (0.0, 0.8)])
def test_the_policy_is_that_of_the_loops(count, effective, similar):
    found = max_min_policy(count, effective=effective, similar=similar, exponent=10)
    np.testing.assert_allclose(found, naive.max_min(count, effective, similar, 10), rtol=1e-9, atol=1e-300)
    assert found.sum() == pytest.approx(1)


def test_the_policy_guarantees_more_than_asking_about_any_share_at_random():
    effective, similar, exponent = 0.25, 0.5, 1.0
    policy = max_min_policy(8, effective=effective, similar=similar, exponent=exponent)
    gain = naive.guaranteed_gain(policy, effective, similar, exponent)
    assert gain > 0
    for k in range(1, 9):
        for plain in (np.arange(8) < k, np.arange(8) >= 8 - k):
            other = naive.guaranteed_gain(plain / plain.sum(), effective, similar, exponent)
            assert gain >= other - 1e-12


def test_nearly_all_questions_go_where_the_documentation_says():
    policy = max_min_policy(10_000)
    places = np.arange(10_000) / 10_000
    assert policy[(places >= 0.7) & (places <= 0.935)].sum() > 0.9
    assert policy[places > 0.94].sum() == 0


def test_a_budget_is_kept_and_spent_on_rows_that_are_neither_hardest_nor_easiest():
    rows = np.arange(2000)
    difficulty = np.random.default_rng(1).permutation(2000).astype(float)
    found = budget_rows(rows, difficulty, 100, seed=2)
    assert len(found) == len(set(found.tolist())) == 100
    assert found.tolist() == budget_rows(rows, difficulty, 100, seed=2).tolist()
    place = 1 - difficulty[found] / 1999  # 0 the hardest
    assert place.max() < 0.94
    assert np.median(place) > 0.7
    assert len(budget_rows(rows, difficulty, 10**6)) < 2000  # the easiest are never asked about
    assert len(budget_rows(rows[:0], difficulty[:0], 5)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_rows(ROWS, 0.0), "share is 0.0"),
        (lambda: confident(ROWS, np.ones(60), 1.2), "share is 1.2"),
        (lambda: hard_band(ROWS, np.ones(60), centre=2), "centre is 2"),
        (lambda: budget_rows(ROWS, np.ones(60), 0), "count is 0"),
        (lambda: max_min_policy(5, effective=0.8, similar=0.5), "effective is 0.8"),
        (lambda: max_min_policy(50, effective=0.0, similar=0.1), "no policy gains"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json"])
def test_row_ids_survive_their_file(tmp_path, name):
    write_row_ids(tmp_path / name, [5, 2, 9, 2])
    assert read_row_ids(tmp_path / name).tolist() == [2, 5, 9]


def test_files_of_row_ids_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"\.parquet or \.json"):
        write_row_ids(tmp_path / "rows.txt", [1])
    with pytest.raises(ConfigError, match="knowledge select"):
        read_row_ids(tmp_path / "rows.csv")
    for content in ('["a"]', "{", '{"a": 1}', "[1.5]"):
        (tmp_path / "rows.json").write_text(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_row_ids(tmp_path / "rows.json")
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_row_ids(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_row_ids(tmp_path / "absent.parquet")


def test_restricted_knowledge_covers_the_rows_alone():
    known = Knowledge(
        row_ids=np.arange(6),
        item_count=4,
        ranking=np.tile(np.arange(4, dtype=np.int32), (6, 1)),
        target_distance=np.arange(6, dtype=np.float32),
        item_embeddings=np.ones((4, 2), dtype=np.float32),
    )
    part = known.restricted([5, 1, 77])
    assert part.row_ids.tolist() == [1, 5]
    assert part.target_distance.tolist() == [1, 5]
    assert part.item_embeddings is known.item_embeddings
    assert part.covers(np.arange(6)).tolist() == [False, True, False, False, False, True]
    assert known.restricted(np.arange(10)) is known
