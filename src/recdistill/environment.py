"""What a result depends on beside its options: versions and devices."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

_PACKAGES: Final = ("recdistill", "torch", "numpy", "polars", "accelerate", "scipy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return ``python``, ``platform``, ``packages`` (name to version, None where missing), ``threads``, ``cuda``."""
    packages: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    threads, cuda = os.cpu_count(), None
    if packages["torch"] is not None:
        import torch

        threads = torch.get_num_threads()
        cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "threads": threads,
        "cuda": cuda,
    }
