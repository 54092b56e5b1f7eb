import json
from pathlib import Path

import pytest
import torch
from torch import nn

from recdistill.config import resolve
from recdistill.data import SequenceDataset
from recdistill.errors import RecdistillError
from recdistill.export import Recommender
from recdistill.item_encoders import Ids
from recdistill.losses import LOSSES
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import TrainOptions, distill
from recdistill.train.averaging import WeightAverage
from shop import ITEMS, ring_dataset

SPEC = {"student": "sasrec", "options": {"embedding_size": 16, "variant": "modern", "max_length": 8}}


class Stop:
    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch, step) == (1, 2):
            raise RuntimeError("power failure")

    def on_epoch(self, record: dict[str, object]) -> None:
        pass


def train(dataset: SequenceDataset, out: Path, average: float, reporter: Stop | None = None) -> Recommender:
    torch.manual_seed(0)
    table = Ids(ITEMS, 16)
    model = SequenceModel(STUDENTS["sasrec"](**SPEC["options"]), table, table, bias=False)
    options = TrainOptions(epochs=3, learning_rate=5e-3, patience=3, average=average)
    return distill(
        dataset,
        model,
        LOSSES["ce"](),
        out=out,
        spec=SPEC,
        options=options,
        supervision="all",
        length=8,
        batch_size=16,
        reporter=reporter,
    )


def lines(out: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def test_the_mean_is_the_one_written_down() -> None:
    module = nn.Linear(2, 1, bias=False)
    values = [torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 4.0]]), torch.tensor([[-3.0, 0.5]])]
    module.weight.data.copy_(values[0])
    mean = WeightAverage(module, 0.15)
    wanted = values[0].clone()
    for step, value in enumerate(values):
        module.weight.data.copy_(value)
        mean.update(step)
        share = min(0.15, (1 + step) / (10 + step))
        wanted = share * wanted + (1 - share) * value
    with mean.in_place():
        torch.testing.assert_close(module.weight.data, wanted)
    torch.testing.assert_close(module.weight.data, values[-1])


def test_parameters_come_back_when_validation_fails() -> None:
    module = nn.Linear(2, 1)
    mean = WeightAverage(module, 0.5)
    module.weight.data.add_(1.0)
    before = module.weight.data.clone()
    with pytest.raises(ValueError, match="no rows"), mean.in_place():
        raise ValueError("no rows")
    torch.testing.assert_close(module.weight.data, before)


def test_training_is_the_same_and_the_mean_is_kept(tmp_path: Path) -> None:
    dataset = ring_dataset()
    plain, mean = train(dataset, tmp_path / "plain", 0.0), train(dataset, tmp_path / "mean", 0.9)
    for one, other in zip(lines(tmp_path / "plain"), lines(tmp_path / "mean"), strict=True):
        assert one["train"] == other["train"]
    histories = [[0, 1, 2]]
    assert not torch.equal(
        plain.model.score(torch.tensor(histories)), mean.model.score(torch.tensor(histories))
    )


def test_a_killed_run_goes_on_to_the_same_mean(tmp_path: Path) -> None:
    dataset = ring_dataset()
    whole = train(dataset, tmp_path / "whole", 0.9)
    with pytest.raises(RuntimeError, match="power failure"):
        train(dataset, tmp_path / "cut", 0.9, Stop())
    resumed = train(dataset, tmp_path / "cut", 0.9)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.parametrize("value", ["1", "-0.1", "much"])
def test_what_is_no_share_is_refused(value: str) -> None:
    with pytest.raises(RecdistillError, match="average"):
        resolve({"dataset": "d"}, strategy="none", file=None, words=[f"train.average={value}"])
