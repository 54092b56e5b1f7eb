"""Training: one loop, exact to resume, that keeps the best epoch on validation."""

from recdistill.train.batches import BatchLoader
from recdistill.train.distill import distill
from recdistill.train.loop import Reporter, Trainer, TrainOptions
from recdistill.train.objective import Objective
from recdistill.train.stopping import EarlyStopping

__all__ = ["BatchLoader", "EarlyStopping", "Objective", "Reporter", "TrainOptions", "Trainer", "distill"]
