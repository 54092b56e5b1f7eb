"""One fixed space for vectors of texts about items and about users: centred, scaled, reduced."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.item_encoders.vectors import principal_directions

_FLOOR = 1e-3  # added to the variances, as a share of their mean: directions that are mostly noise stay small


def has_vector(vectors: Tensor) -> Tensor:
    """Return ``(...)`` bool, whether there is a text at all: without one its vector is zero."""
    return (vectors != 0).any(-1)


@torch.no_grad()
def text_space(*vectors: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the mean ``(D,)`` and the matrix ``(D, r)`` with which a vector x becomes ``(x - mean) @ matrix``.

    The first `rank` principal directions of all given vectors together, each with variance 1; the same text has the
    same coordinates wherever it stands.

    Parameters
    ----------
    vectors
        ``(..., D)`` each; zero vectors do not count.
    rank
        Directions to keep, at least 1; cut to what there is.
    """
    flat = [part.reshape(-1, part.shape[-1]).float() for part in vectors]
    known = torch.cat([part[has_vector(part)] for part in flat])
    mean = known.mean(0)
    centred = known - mean
    directions = principal_directions(centred, min(rank, *centred.shape))  # (D, r)
    variance = (centred @ directions).square().mean(0)
    return mean, directions / (variance + _FLOOR * variance.mean()).sqrt().clamp_min(1e-12)


@torch.no_grad()
def into_space(vectors: Tensor, mean: Tensor, matrix: Tensor) -> Tensor:
    """Return ``(..., r)`` coordinates; a zero vector stays zero."""
    found: Tensor = (vectors.float() - mean) @ matrix * has_vector(vectors).unsqueeze(-1)
    return found
