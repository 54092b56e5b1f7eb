"""Distil language-model recommenders into fast sequential students, and measure what was gained.

The public names are loaded on first use, so ``import recdistill`` costs milliseconds.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Catalogue": "recdistill.data",
    "Interactions": "recdistill.data",
    "SequenceDataset": "recdistill.data",
    "Evaluation": "recdistill.evaluate",
    "Knowledge": "recdistill.knowledge",
    "RecdistillError": "recdistill.errors",
    "Recommender": "recdistill.export",
}

__all__ = sorted([*_PUBLIC, "__version__"])
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'recdistill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
