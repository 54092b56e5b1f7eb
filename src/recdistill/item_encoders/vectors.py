"""Teacher vectors made fit to learn from: centred, scaled, reduced to principal components."""

from __future__ import annotations

import torch
from torch import Tensor

#: One thing done to vectors: a shift ``(n,)`` that is taken off, then a number, a factor ``(n,)`` or a matrix
#: ``(n, m)`` that they are multiplied by.
Step = tuple[Tensor, Tensor]

_EXACT_WIDTH = 1024  # up to this width the covariance is decomposed exactly
_TINY = 1e-6


def has_text(vectors: Tensor) -> Tensor:
    """Return ``(I,)`` bool, whether an item has a vector at all: without text its row is zero."""
    return (vectors != 0).any(1)


@torch.no_grad()
def standardised(vectors: Tensor, steps: list[Step] | None = None) -> Tensor:
    """Return ``(I, D)`` float32 with mean 0 and variance 1 in each dimension; rows without text stay zero.

    The hidden states of a language model have a few huge dimensions, which would otherwise be all that is
    seen. A dimension that does not vary becomes 0. What was done is appended to `steps`.
    """
    text = has_text(vectors)
    known = vectors[text].float()  # (I', D)
    mean = known.mean(0)
    centred = known - mean
    scale = centred.square().mean(0).sqrt()
    if steps is not None:
        steps.append((mean, torch.where(scale > _TINY, 1 / scale.clamp_min(_TINY), 0.0)))
    result = torch.zeros(vectors.shape, dtype=torch.float32, device=vectors.device)
    result[text] = torch.where(scale > _TINY, centred / scale.clamp_min(_TINY), 0.0)
    return result


@torch.no_grad()
def principal_components(
    vectors: Tensor, rank: int, *, whiten: bool, steps: list[Step] | None = None
) -> Tensor:
    """Return ``(I, rank)`` float32, the coordinates on the `rank` directions of largest variance.

    Exact up to 1,024 dimensions, else by a randomised method with a fixed seed. A direction's sign makes its
    largest entry positive, so that two runs agree. Rows without text stay zero.

    Parameters
    ----------
    vectors
        ``(I, D)``.
    rank
        Directions to keep, at most ``min(I, D)``; more are cut to that.
    whiten
        Whether each coordinate is scaled to variance 1.
    steps
        What was done is appended here.
    """
    text = has_text(vectors)
    known = vectors[text].float()
    mean = known.mean(0)
    centred = known - mean  # (I', D)
    directions = principal_directions(centred, min(rank, *centred.shape))  # (D, rank)
    coordinates = centred @ directions  # (I', rank)
    if whiten:
        scale = coordinates.square().mean(0).sqrt()
        coordinates = torch.where(scale > _TINY, coordinates / scale.clamp_min(_TINY), 0.0)
        directions = directions * torch.where(scale > _TINY, 1 / scale.clamp_min(_TINY), 0.0)
    if steps is not None:
        steps.append((mean, directions))
    result = torch.zeros((len(vectors), directions.shape[1]), device=vectors.device)
    result[text] = coordinates
    return result


def principal_directions(centred: Tensor, rank: int) -> Tensor:
    """Return ``(D, rank)`` the directions of largest variance of ``(n, D)`` centred vectors, signs made definite."""
    directions = _directions(centred, rank)
    return directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()


def unit_mean_norm(vectors: Tensor, steps: list[Step] | None = None) -> Tensor:
    """Return the vectors divided by the root of their mean squared length, rows without text left out.

    What was done is appended to `steps`.
    """
    length = (vectors.square().sum() / has_text(vectors).sum().clamp_min(1)).sqrt()
    if steps is not None:
        steps.append((vectors.new_zeros(vectors.shape[1]), 1 / length.clamp_min(_TINY)))
    return vectors / length.clamp_min(_TINY)


def _directions(centred: Tensor, rank: int) -> Tensor:
    if centred.shape[1] <= _EXACT_WIDTH:
        vectors: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors
        return vectors.flip(1)[:, :rank]
    devices = [centred.device] if centred.is_cuda else []
    with torch.random.fork_rng(devices=devices):  # the caller's random numbers stay as they were
        torch.manual_seed(0)
        extra = min(rank + 16, *centred.shape)
        right: Tensor = torch.svd_lowrank(centred, q=extra, niter=4)[2]  # (D, rank + 16)
        return right[:, :rank]
