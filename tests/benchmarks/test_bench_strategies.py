"""The strategy benchmark takes real steps of every side, at a size that takes milliseconds."""

from __future__ import annotations

import pytest

import synthetic
from bench_strategies import SIDES, make_steps, teacher
from recdistill.strategies import STRATEGIES


def test_every_strategy_is_measured() -> None:
    assert {name for name, _, _ in SIDES.values()} == set(STRATEGIES)


@pytest.mark.parametrize("side", [None, "rd", "rce, vectors", "soft_labels", "dcd, item side"])
def test_a_side_takes_a_step(side: str | None) -> None:
    dataset = synthetic.windows(40, 150)
    steps = make_steps(
        dataset, teacher(dataset, listed=12, size=8, seed=1), side, batch_size=16, supervision="last"
    )
    steps()
    steps()
    assert steps.targets == 16
    assert len(steps.objective.strategies) == (side is not None)
    assert steps.trainer.progress.sums[0] > 0
