"""Training states on disk: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from recdistill.errors import RunError
from recdistill.runs import atomic_file
from recdistill.train.seed import generator_states, restore_generator_states


def save_checkpoint(path: Path, module: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write parameters, optimiser state, generator states and `progress` (JSON-able) as one safetensors file."""
    tensors = {f"module.{name}": value for name, value in _state(module).items()}
    tensors |= {f"rng.{name}": value for name, value in generator_states().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata={"progress": json.dumps(progress)})


def load_checkpoint(path: Path, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote and return its progress.

    Raises
    ------
    RunError
        The file is damaged or belongs to a model of another shape.
    """
    try:
        tensors, progress = load_file(path), read_progress(path)
        module.load_state_dict(_part(tensors, "module."))
    except Exception as error:  # safetensors and torch raise many kinds; all mean the file does not fit
        raise RunError(f"{path} cannot be resumed: {error}. Remove it to start this run anew.") from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    restore_generator_states(_part(tensors, "rng."))
    return progress


def read_progress(path: Path) -> dict[str, Any]:
    """Return the progress alone; the tensors are not read."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(json.loads(header["__metadata__"]["progress"]))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
