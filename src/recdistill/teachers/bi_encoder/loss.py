"""The loss of one training step of a bi-encoder: a softmax over rivals that stand for the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recdistill.teachers.bi_encoder.model import BiEncoder
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Step:
    """What one training step looks at; `bi_encoder_steps` says how it is drawn.

    Attributes
    ----------
    history
        ``(B, L)`` items, newest first.
    targets
        ``(B,)``.
    weights
        ``(B,)`` share of each row in the loss, in expectation of sum 1.
    titles
        ``(g,)`` unique items that are encoded with gradients; all others have the vectors of the table.
    rivals
        ``(m,)`` unique items that compete.
    expected
        ``(m,)`` how often each is expected among the rivals of a row with another target; not read with `drawn`.
    drawn
        Where the rivals are drawn evenly and without repeats from so many items, that number; else None.
    """

    history: Ints
    targets: Ints
    weights: Floats
    titles: Ints
    rivals: Ints
    expected: Floats
    drawn: int | None = None


def step_loss(model: BiEncoder, step: Step) -> Tensor:
    """Return the weighted softmax loss of one step, and leave the fresh vectors in the model's table.

    For a row with target y, history h and rivals R, item j of which was expected ``e_j`` times::

        L = -s_y + log( e^{s_y} + Σ_{j in h, j != y} e^{s_j} + Σ_{j in R, j != y, j not in h} e^{s_j} / e_j )   # (5)

    which estimates the softmax over all that compete. The items of the history are always there, since ρ acts on
    them. Rivals drawn from n items have ``e_j = (m - [y in R]) / (n - 1)``.
    """
    device = model.vectors.device
    given = (step.history, step.targets, step.rivals, step.titles)
    history, targets, rivals, titles = (torch.from_numpy(part).to(device) for part in given)
    parts = (history.clamp_min(0).flatten(), targets, rivals, titles)
    known, place = torch.unique(torch.cat(parts), return_inverse=True)  # (n,)
    at_history, at_target, at_rivals, at_titles = place.split([len(part) for part in parts])
    z = _vectors(model, known, step.titles, titles, at_titles)  # (n, D)
    present = history != PAD
    in_history = at_history.view(history.shape)  # (B, L)
    pooled = model.options.query == "pooled"
    query = model.pooled(z[in_history], present) if pooled else model.read(step.history)  # (B, D)
    repeats = history == targets.unsqueeze(1)  # (B, L)
    own = (query * z[at_target]).sum(1) + model.repeat * repeats.any(1)  # (B,)
    old = (z[in_history] @ query.unsqueeze(-1)).squeeze(-1) + model.repeat  # (B, L)
    old = old.masked_fill(~present | repeats | _again(history), -torch.inf)
    columns = torch.full((len(known),), PAD, device=device)
    columns[at_rivals] = torch.arange(len(rivals), device=device)  # where an item stands among the rivals
    own_column = columns[at_target].unsqueeze(1)  # (B, 1)
    others = query @ z[at_rivals].T - _log_expected(step, own_column)  # (B, m)
    taken = torch.cat([own_column, torch.where(present, columns[in_history], PAD)], 1)
    logits = torch.cat([own.unsqueeze(1), old, _without(others, taken)], 1)
    losses = cross_entropy(logits, torch.zeros_like(targets), reduction="none")
    return losses @ torch.from_numpy(step.weights).to(device)


def _vectors(model: BiEncoder, known: Tensor, titles: Ints, index: Tensor, place: Tensor) -> Tensor:
    """Return ``(n, D)`` z of the known items, fresh for the titles, which have the places `place` among them."""
    vectors = model.vectors[known]
    if len(titles):
        fresh = model.encode(titles)  # (g, H)
        vectors = vectors.index_copy(0, place, fresh)
        model.vectors[index] = fresh.detach()
    return model.project(vectors, model.has_text[known])


def _log_expected(step: Step, own_column: Tensor) -> Tensor:
    """Return ``(B, 1)`` or ``(1, m)`` log e_j of eq. 5."""
    if step.drawn is None:
        return torch.from_numpy(step.expected).to(own_column.device).log().unsqueeze(0)
    others = (len(step.rivals) - (own_column != PAD).float()).clamp_min(1)  # (B, 1)
    return (others / max(1, step.drawn - 1)).log()


def _without(scores: Tensor, columns: Tensor) -> Tensor:
    """Return ``(B, m)`` scores with ``(B, k)`` columns at minus infinity; `PAD` names none."""
    rows, slots = (columns != PAD).nonzero(as_tuple=True)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask[rows, columns[rows, slots]] = True
    return scores.masked_fill(mask, -torch.inf)


def _again(history: Tensor) -> Tensor:
    """Return ``(B, L)``: which items stand nearer to the front of the same row too."""
    same = history.unsqueeze(2) == history.unsqueeze(1)  # (B, L, L)
    return same.tril(-1).any(2)
