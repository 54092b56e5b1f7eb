"""Hint: regression on the teacher's item vectors. FitNets, Romero et al., ICLR 2015.
https://arxiv.org/abs/1412.6550

Over the items U that occur in a batch, with e_i the student's vector, z_i the teacher's and r a regressor
that is learned along and thrown away after training:

(1)  L = 1/|U| sum_{i in U} 1/2 || r(e_i) - z_i ||^2

=============  ==================  ========  ============  ===============================================
symbol         name in code        shape     default       where the default comes from
=============  ==================  ========  ============  ===============================================
e_i            student             (U, d)    input table   ours; the paper's students have two tables
z_i            teacher             (U, D')   standardised  ours: else a few dimensions are all of the loss
r              regressor                     linear        FitNets has a convolution; ports use linear, MLP
D'             rank                          D             ours: 64 to 256 saves time
=============  ==================  ========  ============  ===============================================

Where others' code differs
1. FitNets trains on (1) alone first and on the task after; recommendation papers add (1) to the loss, as here
   is done.
2. Ports sum (1) over items or average over all entries; the same lambda then means another thing.
   ``reduction="dimension"`` divides (1) by D', so that lambda does not depend on it, ``"item"`` is (1),
   ``"sum"`` does not divide at all.
3. Ports take vectors as they are: ``standardise=False``.
4. One port (KDs) draws random items a step; here those of the batch, histories and targets.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from recdistill.strategies.base import Strategy
from recdistill.strategies.item_vectors import (
    REDUCTIONS,
    TABLES,
    Reduction,
    Table,
    batch_items,
    make_regressor,
    reduced,
    student_size,
    student_vectors,
    teacher_vectors,
)
from recdistill.strategies.options import one_of, positive
from recdistill.types import Batch, StudentOutput, Task


class Hint(Strategy):
    """Regression on the teacher's item vectors, eq. (1).

    Parameters
    ----------
    regressor
        ``"linear"`` or ``"mlp"`` (one hidden layer).
    hidden
        Width of the MLP's hidden layer, or None: the mean of both ends.
    table
        ``"input"`` or ``"output"`` vectors of the student.
    reduction
        ``"dimension"``, ``"item"`` or ``"sum"``, see difference 2.
    standardise
        Whether each teacher dimension is brought to mean 0 and variance 1.
    rank
        Learn from this many whitened principal components instead, or None.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"item_embeddings"})
    teacher: Tensor
    known: Tensor

    def __init__(
        self,
        *,
        regressor: Literal["linear", "mlp"] = "linear",
        hidden: int | None = None,
        table: Table = "input",
        reduction: Reduction = "dimension",
        standardise: bool = True,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        one_of("regressor", regressor, ("linear", "mlp"))
        one_of("table", table, TABLES)
        one_of("reduction", reduction, REDUCTIONS)
        positive(**{name: value for name, value in (("hidden", hidden), ("rank", rank)) if value is not None})
        self.regressor_kind, self.hidden = regressor, hidden
        self.table: Table = table
        self.reduction: Reduction = reduction
        self.standardise, self.rank = standardise, rank
        self.register_buffer("teacher", torch.empty(0), persistent=False)
        self.register_buffer("known", torch.empty(0, dtype=torch.bool), persistent=False)
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, task: Task) -> None:
        """Bring the teacher's vectors into the space of the loss and make the regressor.

        Raises
        ------
        KnowledgeError
            There are no item vectors.
        """
        name = type(self).__name__.lower()
        self.teacher, self.known = teacher_vectors(task, name, standardise=self.standardise, rank=self.rank)
        size = student_size(task, self.table)
        self.regressor = make_regressor(self.regressor_kind, size, self.teacher.shape[1], self.hidden)

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss (1) over the distinct items of the batch that have a teacher's vector."""
        items = batch_items(batch, self.known)  # (U,)
        guessed = self.regressor(student_vectors(output, items, self.table)).float()  # (U, D')
        loss = 0.5 * mse_loss(guessed, self.teacher[items], reduction="sum")
        return reduced(loss, len(items), guessed.shape[1], self.reduction)
