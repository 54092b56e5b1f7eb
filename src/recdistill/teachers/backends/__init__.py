"""Who writes: a local model, an endpoint, or a record of what was written."""

from recdistill.teachers.backends.base import Generation, GenerationRequest, TextGenerator
from recdistill.teachers.backends.hf import HfGenerator
from recdistill.teachers.backends.http import HttpGenerator
from recdistill.teachers.backends.scripted import ScriptedGenerator

#: Backends that ask a model; `ScriptedGenerator` replays one.
BACKENDS: dict[str, type[HfGenerator] | type[HttpGenerator]] = {"hf": HfGenerator, "http": HttpGenerator}

__all__ = [
    "BACKENDS",
    "Generation",
    "GenerationRequest",
    "HfGenerator",
    "HttpGenerator",
    "ScriptedGenerator",
    "TextGenerator",
]
