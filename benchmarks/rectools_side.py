"""RecTools' side of `bench_training.py`; runs in RecTools' own environment and imports nothing of recdistill.

Usage: python rectools_side.py events.npz '{"losses": [...], "threads": [...], ...}'. Its last line is JSON.
"""

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Clock(lightning.Callback):
    """Notes wall and CPU time at each end of a step, and how many targets the step had."""

    marks: list = []  # noqa: RUF012 - shared on purpose: RecTools copies the trainer with its callbacks

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.marks.append((time.perf_counter(), time.process_time(), int((batch["y"] != 0).sum())))


def interactions(path: str) -> Dataset:
    arrays = np.load(path)
    users = np.repeat(np.arange(len(arrays["offsets"]) - 1), np.diff(arrays["offsets"]))
    place = np.arange(len(users)) - arrays["offsets"][users]
    frame = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: arrays["events"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(place, unit="s"),
        }
    )
    return Dataset.construct(frame)


def measure(dataset: Dataset, loss: str, threads: int, options: dict) -> dict:
    """Train for a few steps and return targets per second, by wall and by CPU time, of each step."""
    torch.set_num_threads(threads)
    lightning.seed_everything(options["seed"])
    Clock.marks.clear()
    model = SASRecModel(
        n_blocks=options["blocks"],
        n_heads=options["heads"],
        n_factors=options["size"],
        dropout_rate=options["dropout"],
        session_max_len=options["length"],
        batch_size=options["batch_size"],
        loss=loss,
        n_negatives=1,
        get_trainer_func=lambda: lightning.Trainer(
            max_steps=options["warmup"] + options["steps"],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clock()],
        ),
    )
    model.fit(dataset)
    marks = Clock.marks[options["warmup"] :]
    before = Clock.marks[options["warmup"] - 1 : -1]
    return {
        "wall_s": [now[0] - then[0] for then, now in zip(before, marks)],  # noqa: B905 - python 3.9 as well
        "cpu_s": [now[1] - then[1] for then, now in zip(before, marks)],  # noqa: B905
        "targets": [mark[2] for mark in marks],
        "parameters": sum(p.numel() for p in model.torch_model.parameters()),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    options = json.loads(sys.argv[2])
    dataset = interactions(sys.argv[1])
    names = {"ce": "softmax", "bce": "BCE"}
    result = {
        f"{loss} {threads}": measure(dataset, names[loss], threads, options)
        for loss in options["losses"]
        for threads in options["threads"]
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
