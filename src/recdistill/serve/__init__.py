"""Answer requests with exported students: numpy and onnxruntime, no torch.

Names are loaded on first use: the engine needs no web framework.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Engine": "recdistill.serve.engine",
    "Fleet": "recdistill.serve.fleet",
    "Limits": "recdistill.serve.limits",
    "create_app": "recdistill.serve.app",
    "run": "recdistill.serve.process",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'recdistill.serve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
