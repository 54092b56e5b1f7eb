"""What a training of a language model keeps on disk: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from recdistill.errors import RunError
from recdistill.runs import atomic_file


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that are trained, by name; one that has two names (tied) is there once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def write_parameters(path: Path, model: nn.Module) -> None:
    """Write the trained parameters."""
    _write(path, trainable(model), {})


def read_parameters(path: Path, model: nn.Module) -> None:
    """Put back what `write_parameters` wrote.

    Raises
    ------
    RunError
        The file is damaged, or is of a model with other parameters.
    """
    _put_back(path, _read(path), model)


def write_state(path: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write the trained parameters, the optimiser's state and `progress` (JSON-able)."""
    tensors = {f"model.{name}": value for name, value in trainable(model).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    _write(path, tensors, {"progress": json.dumps(progress)})


def read_state(path: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put back what `write_state` wrote and return its progress.

    Raises
    ------
    RunError
        The file is damaged, or is of a model with other parameters.
    """
    tensors = _read(path)
    _put_back(path, _part(tensors, "model."), model)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with safe_open(path, framework="pt") as file:
        return dict(json.loads(file.metadata()["progress"]))


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    on_disk = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_file(path) as temporary:
        save_file(on_disk, temporary, metadata=metadata)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises many kinds; all mean that the file does not serve
        raise _unusable(path, error) from None


def _put_back(path: Path, tensors: dict[str, Tensor], model: nn.Module) -> None:
    wanted = trainable(model)
    if {name: value.shape for name, value in tensors.items()} != {n: v.shape for n, v in wanted.items()}:
        raise _unusable(path, "its parameters are not those of this model")
    with torch.no_grad():
        for name, value in tensors.items():
            wanted[name].copy_(value)


def _unusable(path: Path, why: object) -> RunError:
    return RunError(
        f"{path} cannot be resumed ({why}). It must be a whole file of the same training: delete the folder "
        f"{path.parent} and run the same command again."
    )


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
