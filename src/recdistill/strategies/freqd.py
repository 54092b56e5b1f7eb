"""FreqD: frequency-aware distillation, Zhu and Zhang, KDD 2025. https://arxiv.org/abs/2411.10676

Hint weighs everything that tells two items apart alike. Seen on a graph of like items, the part in which
neighbours agree (low frequency) carries the preferences, and the part in which they differ (high frequency) is
mostly noise, so that both sides go through a low-pass filter first. Over the items U of a batch, r a regressor
that is thrown away after training, A the graph's adjacency matrix and D its degrees:

(1)  H = (1 - alpha) identity + alpha D^-1/2 A D^-1/2
(2)  L = 1/|U| sum_{i in U} || (H (r(E) - Z))_i ||^2

On an eigenvector of the graph's Laplacian with eigenvalue v (0: all alike, up to 2) H is the factor 1 - alpha v.

=============  ==================  ========  ============  ===============================================
symbol         name in code        shape     default       where the default comes from
=============  ==================  ========  ============  ===============================================
alpha          alpha                         0.2           the authors' code
E              student             (I, d)    input table   as in Hint
Z              teacher             (I, D')   standardised  as in Hint; the authors take 150 components
r              regressor                     linear        as in Hint
A              graph               (I, I)    5 nearest     the authors' code; by cosine of Z
=============  ==================  ========  ============  ===============================================

Where the authors' code differs
1. Its graph is made of interactions and lies in one dense I x I array. Here it joins two items if one is among
   the `neighbours` nearest of the other by the teacher's vectors, and is sparse. It is not thinned at random.
2. It sums (2) over items and dimensions: ``reduction="sum"``. See `recdistill.strategies.hint`.
3. It filters whole tables each step. Z is filtered once here, and of r(E) the items of the batch with their
   neighbours.

With alpha = 0 (2) is twice Hint, whose loss has a factor 1/2.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from recdistill.strategies.base import Strategy
from recdistill.strategies.item_graph import ItemGraph, nearest_graph
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
from recdistill.strategies.options import one_of, positive, share
from recdistill.types import Batch, StudentOutput, Task


class FreqD(Strategy):
    """Regression through a low-pass filter, eq. (2).

    Parameters
    ----------
    alpha
        Strength of the filter, 0 (none) to 1.
    neighbours
        Nearest items that an item is joined with, at least 1.
    regressor, hidden, table, reduction, standardise, rank
        As in `Hint`.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"item_embeddings"})
    filtered: Tensor
    known: Tensor
    starts: Tensor
    items: Tensor
    weights: Tensor

    def __init__(
        self,
        *,
        alpha: float = 0.2,
        neighbours: int = 5,
        regressor: Literal["linear", "mlp"] = "linear",
        hidden: int | None = None,
        table: Table = "input",
        reduction: Reduction = "dimension",
        standardise: bool = True,
        rank: int | None = 128,
    ) -> None:
        super().__init__()
        share("alpha", alpha)
        one_of("regressor", regressor, ("linear", "mlp"))
        one_of("table", table, TABLES)
        one_of("reduction", reduction, REDUCTIONS)
        given = {"neighbours": neighbours, "hidden": hidden, "rank": rank}
        positive(**{name: value for name, value in given.items() if value is not None})
        self.alpha, self.neighbours = alpha, neighbours
        self.kind, self.hidden = regressor, hidden
        self.table: Table = table
        self.reduction: Reduction = reduction
        self.standardise, self.rank = standardise, rank
        for name in ("filtered", "weights"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        for name in ("starts", "items"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)
        self.register_buffer("known", torch.empty(0, dtype=torch.bool), persistent=False)
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, task: Task) -> None:
        """Make the graph, filter the teacher's vectors with it, and make the regressor.

        Raises
        ------
        KnowledgeError
            There are no item vectors.
        """
        teacher, self.known = teacher_vectors(task, "freqd", standardise=self.standardise, rank=self.rank)
        graph = nearest_graph(teacher, self.known, self.neighbours)
        self.starts, self.items, self.weights = graph.starts, graph.items, graph.weights
        everything = torch.arange(len(teacher), device=teacher.device)
        self.filtered = graph.smooth(everything, lambda rows: teacher[rows], self.alpha)  # (I, D')
        size = student_size(task, self.table)
        self.regressor = make_regressor(self.kind, size, teacher.shape[1], self.hidden)

    @property
    def graph(self) -> ItemGraph:
        """The graph, on the device of this module."""
        return ItemGraph(self.starts, self.items, self.weights)

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss (2) over the distinct items of the batch that have a teacher's vector."""
        items = batch_items(batch, self.known)  # (U,)
        guessed = self.graph.smooth(
            items,
            lambda needed: self.regressor(student_vectors(output, needed, self.table)).float(),
            self.alpha,
        )
        total = (guessed - self.filtered[items]).square().sum()
        return reduced(total, len(items), guessed.shape[1], self.reduction)
