"""Early stopping on a validation metric."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Keeps the best value seen and says when to stop.

    Parameters
    ----------
    patience
        Stop after this many evaluations without a better value.
    best, best_epoch, waited
        The state, restored from a checkpoint.
    """

    patience: int
    best: float = -math.inf
    best_epoch: int = -1
    waited: int = 0

    def update(self, value: float, epoch: int) -> bool:
        """Take the value of an epoch (higher is better); return whether it is the best so far."""
        if value > self.best:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether patience is used up."""
        return self.waited >= self.patience
