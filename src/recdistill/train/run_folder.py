"""How a run folder is begun, and how one run's make is told from another's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recdistill.data import SequenceDataset
from recdistill.environment import environment
from recdistill.errors import RunError
from recdistill.runs import (
    MANIFEST,
    fingerprint,
    read_manifest,
    require_fingerprint,
    write_json,
    write_manifest,
)


def open_run(folder: Path, dataset: SequenceDataset, make: Mapping[str, Any]) -> None:
    """Begin a run folder, or check that the one that is there was begun with the same settings.

    Parameters
    ----------
    folder
        The run folder.
    dataset
        What is learned from.
    make
        JSON-able: everything that decides the result.

    Raises
    ------
    RunError
        The folder holds a run of another make.
    FingerprintError
        It was begun on another dataset.
    """
    identity = fingerprint(repr(sorted(make.items(), key=lambda pair: pair[0])))
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder, "run")
        require_fingerprint(str(manifest["dataset_fingerprint"]), dataset.fingerprint, folder)
        if manifest["make"] != identity:
            raise RunError(
                f"{folder} holds a run with other settings. Choose another --out, or pass --overwrite."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "environment.json", environment())
    write_manifest(
        folder,
        "run",
        {"dataset_fingerprint": dataset.fingerprint, "dataset": dataset.name, "make": identity, **make},
    )


def settings(part: torch.nn.Module) -> dict[str, Any]:
    """Return a part's class name and its plain public attributes, to tell one run's make from another's."""
    plain = {k: v for k, v in vars(part).items() if isinstance(v, (bool, int, float, str, type(None)))}
    return {"class": type(part).__name__, **{k: v for k, v in plain.items() if not k.startswith("_")}}
