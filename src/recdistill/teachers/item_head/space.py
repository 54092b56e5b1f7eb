"""Several heads in one space, and the mass that a ranking holds.

Every model has its own head, so a query of one means nothing beside the items of another. All are brought into one
space without loss: with O_m the ``(I, w)`` head of model m and the eigenvectors V of the joint Gram matrix::

    O = [O_0 | O_1 | ... ],    O^T O = V diag(.) V^T,    items = O V,    query = V_m^T q        # (1)

V is orthogonal, so ``items . query = O_m q`` exactly, and two models that give the same scores give nearly the same
query.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.knowledge import Knowledge

Floats = npt.NDArray[np.float32]


def joint_space(heads: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Bring the heads of m models into one space, eq. 1.

    Parameters
    ----------
    heads
        ``(I, w)`` each.

    Returns
    -------
    tuple of list of Tensor and Tensor
        ``(w, W)`` for each model, by which its queries are multiplied, and ``(I, W)`` items, float32, with
        W = m w; directions in the order of their share of all scores.
    """
    joined = torch.cat(heads, 1).double()  # (I, W)
    _, axes = torch.linalg.eigh(joined.T @ joined)
    axes = axes.flip(1)  # (W, W), largest first
    # An eigenvector's sign is arbitrary; this makes two machines agree.
    peaks = axes.abs().argmax(0, keepdim=True)
    axes = axes * axes.gather(0, peaks).sign()
    split = [part.float() for part in axes.split(heads[0].shape[1])]
    return split, (joined @ axes).float()


def listed_mass(knowledge: Knowledge) -> Floats:
    """Return ``(N,)`` the probability that each ranking holds, 0 to 1; what is left of 1 is the other items' mass.

    Raises
    ------
    ConfigError
        The distances are not negative log-probabilities.
    """
    if knowledge.manifest.get("distance") != "negative_log_probability" or knowledge.ranking_distance is None:
        raise ConfigError(
            f"the knowledge of teacher {knowledge.manifest.get('teacher')!r} holds no log-probabilities. Allowed: "
            "knowledge with distance negative_log_probability, e.g. from: recdistill teach item-head"
        )
    mass: Floats = np.exp(-np.nan_to_num(knowledge.ranking_distance, nan=np.inf)).sum(1)
    return mass
