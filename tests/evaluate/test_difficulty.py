from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recdistill.evaluate import session_difficulty
from shop import ITEMS, ring_dataset


@pytest.mark.parametrize("batch_size", [7, 512])
def test_it_is_minus_the_mean_sigmoid_over_the_history(batch_size):
    dataset = ring_dataset()
    rows = dataset.rows("train")[:30]
    table = np.random.default_rng(0).normal(size=(ITEMS, ITEMS))

    def scorer(histories):
        return torch.from_numpy(table[histories[:, 0]])  # the first item decides

    done = []
    found = session_difficulty(scorer, dataset, rows, length=4, batch_size=batch_size, progress=done.append)
    assert sum(done) == 30
    for value, history in zip(found, dataset.histories(rows, 4), strict=True):
        items = [item for item in history if item >= 0]
        sigmoids = [1 / (1 + math.exp(-table[history[0], item])) for item in items]
        assert value == pytest.approx(-sum(sigmoids) / len(items))


def test_a_history_that_the_student_would_have_recommended_is_easy():
    dataset = ring_dataset(noise=0.0)
    rows = dataset.rows("train")

    def likes(sign):
        return lambda histories: sign * 5 * torch.ones(len(histories), ITEMS)

    easy, hard = (session_difficulty(likes(sign), dataset, rows, length=8) for sign in (1, -1))
    assert (easy < hard).all()
