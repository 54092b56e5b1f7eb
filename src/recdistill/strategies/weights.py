"""Weights of listed items that several strategies use."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.strategies.teacher_lists import TeacherList


def position_weights(listed: TeacherList, temperature: float, *, normalised: bool) -> Tensor:
    """Return ``(S, W)`` float32 exp(-(r+1) / temperature), 0 outside the list.

    Parameters
    ----------
    listed
        The teacher's lists; r is the 0-based place of an item.
    temperature
        lambda of RD, beta of eq. 6 of DLLM2Rec; above 0.
    normalised
        Whether a row's weights are divided by their sum.
    """
    exponent = -(listed.places + 1) / temperature
    exponent = exponent.float().masked_fill(~listed.mask, -torch.inf)
    if not normalised:
        return exponent.exp()
    return exponent.softmax(dim=1).nan_to_num()  # an empty list is nan before, 0 after


def divided(values: Tensor, total: Tensor) -> Tensor:
    """Return values / total, and 0 where the total is 0."""
    return torch.where(total > 0, values / total.clamp_min(torch.finfo(values.dtype).tiny), 0.0)
