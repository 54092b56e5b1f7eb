"""Both sides of the step benchmark compute the same objective, at a size that takes milliseconds."""

from __future__ import annotations

import pytest
import torch

import synthetic
from bench_step import SETTINGS, agreement, make_models, our_terms, pairs, sides
from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge


@pytest.fixture(scope="module")
def made() -> tuple[SequenceDataset, Knowledge]:
    dataset = synthetic.windows(60, 150)
    return dataset, synthetic.teacher(dataset, size=24)


@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_gradients_agree(made: tuple[SequenceDataset, Knowledge], name: str) -> None:
    check = agreement(SETTINGS[name], *made, size=32, dtype="float32", autocast=False)
    assert check["loss_difference"] < 1e-6
    assert check["gradient_difference"] < 1e-4


def test_a_wrong_weight_is_noticed(
    made: tuple[SequenceDataset, Knowledge], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(setting):
        loss, [(weight, strategy)] = our_terms(setting)
        return loss, [(2 * weight, strategy)]

    monkeypatch.setattr("bench_step.our_terms", wrong)
    check = agreement(SETTINGS["DLLM2Rec"], *made, size=32, dtype="float32", autocast=False)
    assert check["loss_difference"] > 1e-2


@pytest.mark.parametrize("name", SETTINGS)
def test_every_parameter_has_a_counterpart_of_its_shape(
    made: tuple[SequenceDataset, Knowledge], name: str
) -> None:
    theirs, ours = make_models(SETTINGS[name], *made, "float32")
    matched = pairs(theirs, ours)
    assert {id(mine) for _, mine, _ in matched} == {id(parameter) for parameter in ours.parameters()}
    assert all(other(False).shape == mine.shape for _, mine, other in matched)


def test_each_side_takes_a_step(made: tuple[SequenceDataset, Knowledge]) -> None:
    found = sides(SETTINGS["DLLM2Rec"], *made, 16, bf16=True)
    assert set(found) == {"authors", "float32", "bf16"}
    before = [p.detach().clone() for p in found["float32"].objective.parameters()]  # type: ignore[attr-defined]
    for step in found.values():
        step()
    after = list(found["float32"].objective.parameters())  # type: ignore[attr-defined]
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
