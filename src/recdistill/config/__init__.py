"""Configs: what a run can be told, and how it becomes objects."""

from recdistill.config.build import build_model, default_filter_seen, run
from recdistill.config.resolve import describe, method_of, read_config, resolve, write_config
from recdistill.config.schema import RunConfig

__all__ = [
    "RunConfig",
    "build_model",
    "default_filter_seen",
    "describe",
    "method_of",
    "read_config",
    "resolve",
    "run",
    "write_config",
]
