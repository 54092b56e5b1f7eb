from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.errors import ConfigError
from recdistill.evaluate import (
    Bootstrap,
    bootstrap,
    compare_many,
    compare_rows,
    holm,
    sign_flip_p,
    significance,
)
from references import metrics as naive


def test_exact_p_of_all_sign_patterns():
    differences = np.array([0.4, 0.1, -0.2, 0.7, 0.3, 0.0, 0.25])
    exact = naive.all_sign_patterns_p(differences.tolist())
    assert sign_flip_p(differences, permutations=40_000) == pytest.approx(exact, abs=0.01)


def test_equal_sums_count_whatever_the_rounding():
    # All patterns with both signs equal tie with the observed sum: p = 1/2, though 0.1 is not a binary number.
    differences = np.array([0.1 + 0.2, 0.3])
    assert sign_flip_p(differences, permutations=20_000) == pytest.approx(0.5, abs=0.02)


def test_agreement_with_scipy():
    rng = np.random.default_rng(4)
    first, second = rng.random(60), rng.random(60) - 0.06
    theirs = scipy.stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=np.random.default_rng(1),
    )
    assert sign_flip_p(first - second) == pytest.approx(theirs.pvalue, abs=0.02)


def test_level_is_kept_under_the_null():
    rng = np.random.default_rng(0)
    # Values like NDCG: mostly zero, skewed, and the same for both models in distribution.
    values = rng.exponential(1, (2, 400, 50)) * (rng.random((2, 400, 50)) < 0.3)
    p = [sign_flip_p(a - b, permutations=199, seed=k) for k, (a, b) in enumerate(zip(*values, strict=True))]
    assert 0.025 < np.mean(np.array(p) <= 0.05) < 0.08
    assert 0.15 < np.mean(np.array(p) <= 0.2) < 0.25


def test_a_real_difference_is_found_and_no_difference_is_one():
    rng = np.random.default_rng(0)
    base = rng.random(300)
    assert sign_flip_p(base + 0.1 * rng.random(300) - base) == pytest.approx(1 / 10_001)
    assert sign_flip_p(np.zeros(10)) == 1.0


def test_result_does_not_depend_on_the_chunks(monkeypatch):
    differences = np.random.default_rng(0).standard_normal(40)
    values = {"a": np.random.default_rng(1).random((2, 40)), "b": np.random.default_rng(2).random((1, 40))}
    whole = sign_flip_p(differences, permutations=500), Bootstrap(values, resamples=50)
    for module in (bootstrap, significance):
        monkeypatch.setattr(module, "DRAWS_AT_ONCE", 400)
    parts = sign_flip_p(differences, permutations=500), Bootstrap(values, resamples=50)
    assert whole[0] == parts[0]
    np.testing.assert_allclose(whole[1].means["a"], parts[1].means["a"], rtol=1e-12)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made monotone .04 .06 .06 .06.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_agrees_with_its_definition(p_values):
    assert holm(p_values) == pytest.approx(naive.holm(p_values))


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, inside = 0.3, 0
    for k in range(200):
        first = (rng.random((1, 80)) < 0.5 + truth).astype(float)
        found = compare_rows(first, np.full((1, 80), 0.5), permutations=1, resamples=300, seed=k)
        inside += found.interval[0] <= truth <= found.interval[1]
    assert 0.88 < inside / 200 < 0.99


def test_bootstrap_is_paired():
    base = np.random.default_rng(0).random((1, 500))
    found = compare_rows(base + 0.01, base)
    assert found.interval == pytest.approx((0.01, 0.01), abs=1e-9)


def test_spread_over_seeds_widens_the_interval():
    rng = np.random.default_rng(0)
    rows = rng.random(2_000)
    reference = np.stack([rows, rows, rows])
    steady = compare_rows(reference + np.array([[0.02], [0.02], [0.02]]), reference)
    shaky = compare_rows(reference + np.array([[0.0], [0.02], [0.04]]), reference)
    assert shaky.difference == pytest.approx(steady.difference)
    assert np.ptp(shaky.interval) > 10 * np.ptp(steady.interval) + 0.01
    assert shaky.seeds == (3, 3)


def test_fields_and_seeds_of_a_comparison():
    found = compare_rows(
        np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]), np.array([0.5, 0.5, 0.5]), metric="hr@1", model="m"
    )
    assert found.value == pytest.approx(5 / 6)
    assert found.difference == pytest.approx(1 / 3)
    assert found.relative == pytest.approx(2 / 3)
    assert (found.n, found.seeds, found.metric, found.model) == (3, (2, 1), "hr@1", "m")
    assert found.p == found.p_holm
    assert compare_rows(np.ones(3), np.zeros(3)).relative is None


def test_same_seed_same_answer():
    rng = np.random.default_rng(0)
    first, second = rng.random(50), rng.random(50)
    assert compare_rows(first, second, seed=1) == compare_rows(first, second, seed=1)


def test_many_are_corrected_together():
    rng = np.random.default_rng(0)
    base = rng.random((1, 200))
    values = {
        name: base + shift + 0.2 * rng.standard_normal((1, 200))
        for name, shift in (("a", 0.03), ("b", 0.0), ("c", 0.05))
    }
    found = compare_many({"ref": base, **values}, "ref", metric="hr@1")
    assert list(found) == ["a", "b", "c"]
    assert [one.p_holm for one in found.values()] == pytest.approx(holm([one.p for one in found.values()]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_swapping_the_two_changes_signs_only(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.random(30), rng.random(30)
    one = compare_rows(first, second, permutations=200, resamples=50)
    other = compare_rows(second, first, permutations=200, resamples=50)
    assert one.p == other.p
    assert one.difference == pytest.approx(-other.difference)


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match="same rows"):
        compare_rows(np.ones(3), np.ones(4))
    with pytest.raises(ConfigError, match="same rows"):
        compare_rows(np.ones((1, 0)), np.ones((1, 0)))
    with pytest.raises(ConfigError, match="permutations"):
        compare_rows(np.ones(3), np.zeros(3), permutations=0)
    with pytest.raises(ConfigError, match="confidence"):
        compare_rows(np.ones(3), np.zeros(3), confidence=95)
    with pytest.raises(ConfigError, match="not among"):
        compare_many({"a": np.ones((1, 2))}, "b", metric="hr@1")
