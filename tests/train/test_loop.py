import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recdistill.data import SequenceDataset
from recdistill.errors import RunError, TrainingError
from recdistill.export import Recommender
from recdistill.item_encoders import Ids
from recdistill.losses import LOSSES, Loss
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import TrainOptions, distill
from recdistill.types import Batch, StudentOutput
from shop import ITEMS, ring_dataset

SPEC = {
    "student": "sasrec",
    "options": {"embedding_size": 16, "variant": "modern", "max_length": 8, "dropout": 0.2},
}


@pytest.fixture(scope="module")
def dataset() -> SequenceDataset:
    return ring_dataset()


def model() -> SequenceModel:
    torch.manual_seed(0)
    table = Ids(ITEMS, 16)
    return SequenceModel(STUDENTS["sasrec"](**SPEC["options"]), table, table, bias=False)


def train(
    dataset: SequenceDataset, out: Path, *, loss: Loss | None = None, reporter: Any = None, epochs: int = 4
) -> Recommender:
    options = TrainOptions(epochs=epochs, learning_rate=5e-3, patience=epochs)
    return distill(
        dataset,
        model(),
        loss or LOSSES["ce"](),
        out=out,
        spec=SPEC,
        options=options,
        supervision="all",
        length=8,
        batch_size=16,
        reporter=reporter,
    )


def curve(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class StopAt:
    """A reporter that pulls the plug at one step."""

    def __init__(self, epoch: int, step: int) -> None:
        self.where = (epoch, step)

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch, step) == self.where:
            raise RuntimeError("power failure")

    def on_epoch(self, record: dict[str, Any]) -> None:
        pass


def test_it_learns_the_ring(dataset: SequenceDataset, tmp_path: Path) -> None:
    recommender = train(dataset, tmp_path / "r", epochs=12)
    losses = [line["train"]["total"] for line in curve(tmp_path / "r")]
    assert losses[-1] < 0.8 * losses[0]
    metrics = recommender.evaluate(dataset, "test", filter_seen=False).metrics()
    assert metrics["hr@10"] > 2 * 10 / ITEMS


@pytest.mark.parametrize("where", [(0, 1), (1, 2), (3, 1)])
def test_a_killed_run_goes_on_to_the_same_curve(
    dataset: SequenceDataset, tmp_path: Path, where: tuple[int, int]
) -> None:
    whole = train(dataset, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power failure"):
        train(dataset, tmp_path / "cut", reporter=StopAt(*where))
    resumed = train(dataset, tmp_path / "cut")
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_an_interrupt_inside_an_epoch_keeps_the_step(dataset: SequenceDataset, tmp_path: Path) -> None:
    class Interrupt(StopAt):
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            if (epoch, step) == self.where:
                raise KeyboardInterrupt

    train(dataset, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut", reporter=Interrupt(1, 2))
    steps: list[tuple[int, int]] = []

    class Listen(StopAt):
        def on_step(self, epoch: int, step: int, steps_: int, loss: float) -> None:
            steps.append((epoch, step))

    train(dataset, tmp_path / "cut", reporter=Listen(0, 0))
    assert steps[0] == (1, 3)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again(dataset: SequenceDataset, tmp_path: Path) -> None:
    train(dataset, tmp_path / "r")
    before = (tmp_path / "r" / "metrics.jsonl").read_text()
    train(dataset, tmp_path / "r", reporter=StopAt(0, 1))
    assert (tmp_path / "r" / "metrics.jsonl").read_text() == before


def test_a_run_of_another_make_is_refused(dataset: SequenceDataset, tmp_path: Path) -> None:
    train(dataset, tmp_path / "r", epochs=1)
    with pytest.raises(RunError, match="other settings"):
        train(dataset, tmp_path / "r", epochs=2)


def test_nan_stops_the_run_and_keeps_the_rows(dataset: SequenceDataset, tmp_path: Path) -> None:
    class Poisoned(Loss):
        calls = 0

        def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
            Poisoned.calls += 1
            return output.hidden.sum() * (float("nan") if Poisoned.calls == 3 else 0.0)

    with pytest.raises(TrainingError, match="nan in epoch 0"):
        train(dataset, tmp_path / "r", loss=Poisoned())
    kept = json.loads((tmp_path / "r" / "failure" / "rows.json").read_text())
    assert kept["step"] == 2
    assert set(kept["row_ids"]) <= set(dataset.row_ids[dataset.rows("train")].tolist())
    assert (tmp_path / "r" / "failure" / "last.safetensors").is_file()


def test_the_best_epoch_on_validation_is_kept(dataset: SequenceDataset, tmp_path: Path) -> None:
    recommender = train(dataset, tmp_path / "r", epochs=6)
    valid = recommender.evaluate(dataset, "valid", filter_seen=False).metrics()["ndcg@20"]
    assert valid == pytest.approx(max(line["valid"]["ndcg@20"] for line in curve(tmp_path / "r")), abs=1e-9)


def test_two_evaluations_are_identical(dataset: SequenceDataset, tmp_path: Path) -> None:
    recommender = train(dataset, tmp_path / "r", epochs=1)
    first, second = (recommender.evaluate(dataset, "test", filter_seen=True) for _ in range(2))
    np.testing.assert_array_equal(first.ranks, second.ranks)
