"""What `bench_serving.py` compares: a student with a given item table, its export, a server process, RecTools."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from recdistill.columns import write_columns
from recdistill.item_encoders import Ids
from recdistill.runs import file_checksum, write_json, write_manifest
from recdistill.students import SASRec, SequenceModel

JSON = {"Content-Type": "application/json"}


def trained_table(path: Path | None) -> np.ndarray:
    """Return ``(I, 64)`` item vectors of a trained run; without one, of a student trained for a minute here."""
    if path is not None:
        with safe_open(path, "np") as file:
            names = set(file.keys())
            found = next(
                n for n in ("item_table", "output_encoder.weight", "item_encoder.weight") if n in names
            )
            return np.asarray(file.get_tensor(found), dtype=np.float32)
    from recdistill.data import ShopConfig, simulated_dataset
    from recdistill.losses import CE
    from recdistill.train import TrainOptions, distill

    dataset = simulated_dataset(ShopConfig(users=1500, items=2000), "leave-one-out")
    options = {"embedding_size": 64, "variant": "modern", "max_length": 50}
    items = Ids(dataset.item_count, 64)
    with tempfile.TemporaryDirectory() as folder:
        made = distill(
            dataset,
            SequenceModel(SASRec(**options), items, items, bias=False),
            CE(),
            [],
            None,
            out=Path(folder) / "r",
            spec={"student": "sasrec", "options": options},
            supervision="all",
            length=50,
            options=TrainOptions(epochs=15),
        )
    return made.model.output_encoder.table().detach().numpy()


def widened(source: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return ``(count, H)``: the rows of a trained table, as they are first, and then again with noise."""
    if count <= len(source):
        return np.ascontiguousarray(source[:count])
    more = source[random.integers(0, len(source), count - len(source))]
    noise = random.standard_normal(more.shape, dtype=np.float32) * np.float32(source.std() / 2)
    return np.concatenate([source, more + noise]).astype(np.float32)


def student(table: np.ndarray, length: int) -> SequenceModel:
    """Return SASRec, 2 blocks, with this table."""
    torch.manual_seed(0)
    items = Ids.from_table(torch.from_numpy(table))
    model = SequenceModel(
        SASRec(embedding_size=table.shape[1], variant="modern", max_length=length), items, items, bias=False
    )
    return model.eval()


def write_export(folder: Path, model: SequenceModel, table: np.ndarray, length: int) -> None:
    """Write the folder that `recdistill serve` reads, with the graphs that `recdistill export` makes."""
    from recdistill.export.onnx_models import write_graphs

    folder.mkdir()
    tensors = {f"student.{name}": value.numpy() for name, value in model.student.state_dict().items()}
    tensors["item_table"] = table
    save_file(tensors, folder / "model.safetensors")
    write_graphs(folder, model.student, tensors, length=length)
    write_json(folder / "config.json", {"student": "sasrec", "length": length, "item_count": len(table)})
    count = len(table)
    names = {
        "item_id": [f"id-{n}" for n in range(count)],
        "title": [f"Title {n} of many" for n in range(count)],
    }
    write_columns(folder / "items.safetensors", names)
    sums = {path.name: {"sha256": file_checksum(path)} for path in folder.iterdir()}
    write_manifest(folder, "recommender-export", {"dataset_fingerprint": "0" * 64, "files": sums})


@dataclass
class Server:
    """A server process on the loopback."""

    process: subprocess.Popen[bytes]
    url: str

    def memory_mib(self) -> float:
        """Return its resident memory."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in fields if line.startswith("VmRSS")).split()[1]) / 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


def server(folder: Path) -> Server:
    """Start ``recdistill serve`` and wait until it is ready."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    code = "from recdistill.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", str(folder), "--port", str(port), "--log-level", "error"]
    made = Server(subprocess.Popen(command), f"http://127.0.0.1:{port}")
    for _ in range(1200):
        try:
            if httpx.get(f"{made.url}/ready").status_code == 200:
                return made
        except httpx.TransportError:
            time.sleep(0.1)
        if made.process.poll() is not None:
            break
    sys.exit("the server did not start")


_RECTOOLS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd, torch, pytorch_lightning as lightning
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
count, length, hidden, k = map(int, sys.argv[1:])
torch.set_num_threads(1)
random = np.random.default_rng(0)
events = np.concatenate([np.arange(count), random.integers(0, count, 64 * length)])
users = np.concatenate([np.arange(count) // length, 10**6 + np.repeat(np.arange(64), length)])
frame = pd.DataFrame({Columns.User: users, Columns.Item: events, Columns.Weight: 1.0,
    Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(users)), unit="s")})
dataset = Dataset.construct(frame)
model = SASRecModel(n_blocks=2, n_heads=2, n_factors=hidden, session_max_len=length, recommend_batch_size=1,
    get_trainer_func=lambda: lightning.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False))
model.fit(dataset)
walls = []
for user in range(-3, 40):
    start = time.perf_counter()
    model.recommend(users=[10**6 + max(user, 0)], dataset=dataset, k=k, filter_viewed=True)
    if user >= 0:
        walls.append(1e3 * (time.perf_counter() - start))
print(json.dumps({"p50_ms": float(np.percentile(walls, 50)), "min_ms": min(walls)}))
"""


def rectools(python: Path, count: int, length: int, hidden: int, k: int) -> dict[str, float]:
    """Return what RecTools' `recommend` takes for one user, in RecTools' own environment."""
    command = [str(python), "-c", _RECTOOLS, *map(str, (count, length, hidden, k))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"RecTools failed:\n{done.stderr[-1500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
