"""A model in evaluation mode as a scorer: histories, and row ids where the model knows something of rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.students import SequenceModel
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]


class ModelScorer:
    """Scores histories.

    Parameters
    ----------
    model
        A folded model in evaluation mode.

    Attributes
    ----------
    wants_row_ids
        Whether what is known of rows changes the scores; `recdistill.evaluate.ranks.ask` looks at it.
    """

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.wants_row_ids = model.user_encoder is not None

    def __call__(self, histories: Ints, row_ids: Ints | None = None) -> Tensor:
        """Return ``(B, I)`` scores after ``(B, L)`` histories; without row ids nothing is known of the users.

        Columns in which no history has an item any more are left out: the student would compute pads.
        """
        longest = max(1, int((histories != PAD).sum(1).max(initial=0)))
        histories = histories[:, :longest]
        known = None if row_ids is None else torch.from_numpy(row_ids).to(self.device)
        return self.model.score(torch.from_numpy(histories).to(self.device), known)
