"""Optional packages: which extra brings which, and what to say where one is missing.

The core is what answering needs (numpy, pydantic, safetensors, typer), so that ``recdistill[serve]`` stays small.
Every other extra brings ``recdistill[train]``: torch, polars and what else forms a student.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from recdistill.errors import MissingExtraError

#: Module → the extra that brings it. The first of an extra tells whether that extra is installed.
EXTRA_OF: Final = {
    "torch": "train",
    "accelerate": "train",
    "polars": "train",
    "scipy": "train",
    "sklearn": "train",
    "threadpoolctl": "train",
    "yaml": "train",
    "rich": "train",
    "matplotlib": "report",
    "sentence_transformers": "embed",
    "transformers": "llm",
    "tokenizers": "llm",
    "peft": "llm",
    "openai": "llm",
    "optuna": "tune",
    "onnx": "export",
    "fastapi": "serve",
    "onnxruntime": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "huggingface_hub": "hub",
    "ray": "cluster",
}


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports in this block come with an extra.

    Parameters
    ----------
    name
        The extra, such as ``"export"``.

    Raises
    ------
    MissingExtraError
        One of the packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or name, name) from None


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return the error with the extra that brings the missing module; None where no extra does."""
    module = (error.name or "").partition(".")[0]
    return MissingExtraError(module, EXTRA_OF[module]) if module in EXTRA_OF else None
