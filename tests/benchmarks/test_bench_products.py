"""The benchmark of listed products compares two sides that compute the same."""

from __future__ import annotations

from bench_products import difference, gathered, make


def test_the_sides_agree() -> None:
    assert difference((7, 12, 6, 30), 0) < 1e-5


def test_a_side_gives_scores_and_gradients() -> None:
    scores, of_hidden, of_table = make(gathered, (3, 5, 4, 9), 1)()
    assert (scores.shape, of_hidden.shape, of_table.shape) == ((3, 5), (3, 4), (9, 4))
