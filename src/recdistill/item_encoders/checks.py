"""Checks of an item encoder's options and of the vectors it is made from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recdistill.errors import ConfigError, KnowledgeError


def refuse(encoder: str, option: str, value: object, allowed: str) -> ConfigError:
    """Return the error for an option's value that is not allowed."""
    return ConfigError(
        f"{option} of item encoder {encoder} is {value!r}. Allowed: {allowed}. "
        f"Set it with: recdistill distill ... item_encoder.options.{option}=VALUE"
    )


def one_of(encoder: str, option: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise `ConfigError` if a value is not among the `allowed` ones."""
    if value not in allowed:
        raise refuse(encoder, option, value, ", ".join(allowed))


def above_zero(encoder: str, **options: float | None) -> None:
    """Raise `ConfigError` if an option that is not None is not above 0."""
    for option, value in options.items():
        if value is not None and not value > 0:
            raise refuse(encoder, option, value, "above 0")


def checked_vectors(vectors: Any, item_count: int) -> Tensor:
    """Return the ``(I, D)`` teacher vectors as a tensor.

    Raises
    ------
    KnowledgeError
        There is not one vector an item, or one is not finite.
    """
    table: Tensor = torch.as_tensor(vectors)
    if table.ndim != 2 or len(table) != item_count:
        raise KnowledgeError(
            f"the item embeddings have the shape {tuple(table.shape)}. Allowed: ({item_count}, D): "
            "a vector an item. Make them anew with: recdistill teach embedding --dataset DIR --out DIR"
        )
    finite = torch.linalg.vector_norm(table, torch.inf, dim=1).isfinite()  # no copy of the table
    if not bool(finite.all()):
        raise KnowledgeError(
            f"the vector of item {int((~finite).nonzero()[0])} is not finite. Allowed: finite numbers, "
            "a zero row for an item without text. "
            "Make them anew with: recdistill teach embedding --dataset DIR --out DIR"
        )
    return table
