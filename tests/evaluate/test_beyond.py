from __future__ import annotations

import math

import numpy as np
import pytest

from recdistill.errors import DataError
from recdistill.evaluate import beyond_accuracy
from recdistill.evaluate.beyond import gini
from recdistill.types import PAD
from references import metrics as naive

POPULARITY = np.array([6, 1, 1, 0])


def test_worked_values():
    found = beyond_accuracy(np.array([[0, 1], [0, PAD]]), POPULARITY)
    assert found["coverage@2"] == 0.5
    assert found["popularity@2"] == pytest.approx((6 + 1 + 6) / 3)
    # (6 + 1) of 8 + 4 interactions, and (1 + 1) of 12.
    assert found["novelty@2"] == pytest.approx((2 * math.log2(12 / 7) + math.log2(6)) / 3)
    assert found["gini@2"] == pytest.approx(naive.gini([2, 1, 0, 0]))


def test_a_cold_item_is_the_most_novel_and_finite():
    values = [beyond_accuracy(np.array([[item]]), POPULARITY)["novelty@1"] for item in range(4)]
    assert max(values) == values[3] == pytest.approx(math.log2(12))


@pytest.mark.parametrize("exposure", [[1, 1, 1, 1], [4, 0, 0, 0], [1, 2, 3, 10], [0, 5]])
def test_gini_is_half_the_relative_mean_difference(exposure):
    assert gini(np.array(exposure)) == pytest.approx(naive.gini(exposure), abs=1e-12)


@pytest.mark.parametrize("top", [[[PAD, PAD]], [[4, 0]], [[-2, 0]]])
def test_wrong_lists_are_refused(top):
    with pytest.raises(DataError, match="top_items"):
        beyond_accuracy(np.array(top), POPULARITY)
