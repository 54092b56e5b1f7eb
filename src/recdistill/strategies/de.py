"""DE: Distillation Experts, from DE-RRD, Kang et al., CIKM 2020. https://arxiv.org/abs/2012.04357

As Hint, but each item is rebuilt by an expert of its own kind: M small networks map the student's vector e_i to
the teacher's z_i, and a gate that sees the teacher's vector says which of them answers for the item. Over the
items U of a batch:

(1)  e_m(e_i) = W_m relu(V_m e_i)                    biases left out; inner width (d + D') / 2
(2)  alpha_i = softmax(V z_i)
(3)  a_i = softmax((log alpha_i + g_i) / tau)        g_i: M Gumbel draws, 0 in evaluation mode
(4)  L = 1/|U| sum_i || z_i - sum_m a_im e_m(e_i) ||^2
(5)  tau = tau_0 (tau_P / tau_0)^(p / P)             in epoch p: from a mixture of experts to one of them

=============  ==================  ========  ============  ===============================================
symbol         name in code        shape     default       where the default comes from
=============  ==================  ========  ============  ===============================================
M              experts                       30            the authors' code
e_i            student             (U, d)    input table   as in Hint
z_i            teacher             (U, D')   128 parts     ours: M experts for 4,096 numbers are 260 million
                                                           parameters, for 128 they are 0.6 million
tau_0, tau_P   tau_start, tau_end            1, 1e-10      the authors' code
P              epochs                        100           ours: how long a run lasts; theirs is 1,000
.              tau_floor                     1e-3          ours, see difference 3
U              most_items                    all           the paper; a limit is ours, see difference 5
=============  ==================  ========  ============  ===============================================

Where the authors' code differs
1. It has no sequences: users and items have vectors, and both are learned. Here the items of the batch are.
2. It sums (4) over items and dimensions: ``reduction="sum"``. See `recdistill.strategies.hint`.
3. At tau = 1e-10 the gate's gradient is 0 almost everywhere and of size 1e9 at ties. `tau_floor` stops (5)
   earlier; 0 is theirs.
4. It holds an array of U x D' x M. The sum over m in (4) is one matrix product here: a_im scales the inner
   layer.
5. M experts for all items of a batch cost many times a small student's step. `most_items` draws so many of them anew
   in each step: the same loss in the mean where `reduction` is one.

With one expert (4) is twice Hint with ``regressor="mlp"``, whose loss has a factor 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from recdistill.errors import KnowledgeError
from recdistill.strategies.base import Strategy
from recdistill.strategies.item_vectors import (
    REDUCTIONS,
    TABLES,
    Reduction,
    Table,
    batch_items,
    reduced,
    student_size,
    student_vectors,
    teacher_vectors,
)
from recdistill.strategies.options import not_negative, one_of, positive
from recdistill.types import Batch, StudentOutput, Task

_WIDEST = 256  # of a teacher's vector: the experts' parameters and time grow with its square


class DE(Strategy):
    """Distillation Experts, eq. (4).

    Parameters
    ----------
    experts
        M, at least 1.
    table
        ``"input"`` or ``"output"`` vectors of the student.
    reduction
        ``"dimension"``, ``"item"`` or ``"sum"``, as in `Hint`.
    standardise
        Whether each teacher dimension is brought to mean 0 and variance 1.
    rank
        Rebuild this many whitened principal components; None: the vectors as they are, at most 256 wide.
    tau_start, tau_end, epochs
        tau_0 > 0, tau_P > 0 and P >= 1 of (5).
    tau_floor
        tau never falls below it; 0 or more.
    most_items
        At most so many of a batch's items are rebuilt, at least 1; None: all.

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
        experts: int = 30,
        table: Table = "input",
        reduction: Reduction = "dimension",
        standardise: bool = True,
        rank: int | None = 128,
        tau_start: float = 1.0,
        tau_end: float = 1e-10,
        epochs: int = 100,
        tau_floor: float = 1e-3,
        most_items: int | None = None,
    ) -> None:
        super().__init__()
        one_of("table", table, TABLES)
        one_of("reduction", reduction, REDUCTIONS)
        positive(experts=experts, tau_start=tau_start, tau_end=tau_end, epochs=epochs)
        not_negative(tau_floor=tau_floor)
        if rank is not None:
            positive(rank=rank)
        if most_items is not None:
            positive(most_items=most_items)
        self.experts = experts
        self.table: Table = table
        self.reduction: Reduction = reduction
        self.standardise, self.rank = standardise, rank
        self.tau_start, self.tau_end, self.epochs, self.tau_floor = tau_start, tau_end, epochs, tau_floor
        self.most_items = most_items
        self._tau = tau_start
        self.register_buffer("teacher", torch.empty(0), persistent=False)
        self.register_buffer("known", torch.empty(0, dtype=torch.bool), persistent=False)
        self.gate: nn.Module = nn.Identity()

    def prepare(self, task: Task) -> None:
        """Bring the teacher's vectors into the space of the loss and make gate and experts.

        Raises
        ------
        KnowledgeError
            There are no item vectors, or they are too wide for M experts.
        """
        self.teacher, self.known = teacher_vectors(task, "de", standardise=self.standardise, rank=self.rank)
        width, size = self.teacher.shape[1], student_size(task, self.table)
        if width > _WIDEST:
            raise KnowledgeError(
                f"the teacher's item vectors have {width} numbers. Experts are made for at most {_WIDEST}. "
                "Set de.rank=128: principal components in their place."
            )
        self._make_experts(size, width)

    def _make_experts(self, size: int, width: int) -> None:
        """Draw M experts as the M separate two-layer networks would be drawn."""
        inner = (size + width) // 2
        self.gate = nn.Linear(width, self.experts)
        self.entry = nn.Linear(size, self.experts * inner)
        limit = inner**-0.5
        self.exit = nn.Parameter(torch.empty(self.experts, inner, width).uniform_(-limit, limit))
        self.exit_bias = nn.Parameter(torch.empty(self.experts, width).uniform_(-limit, limit))

    def on_epoch(self, epoch: int) -> None:
        """Set the temperature (5)."""
        progress = min(1.0, epoch / self.epochs)
        self._tau = max(self.tau_floor, self.tau_start * (self.tau_end / self.tau_start) ** progress)

    @property
    def tau(self) -> float:
        """The temperature of this epoch."""
        return self._tau

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss (4) over the distinct items of the batch that have a teacher's vector."""
        items = batch_items(batch, self.known, self.most_items)  # (U,)
        return self.rebuild(student_vectors(output, items, self.table), self.teacher[items])

    def rebuild(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar loss (4) of ``(U, d)`` student and ``(U, D')`` teacher vectors."""
        shares = self.shares(teacher)  # (U, M)
        inner = torch.relu(self.entry(student)).float()  # (U, M inner)
        inner = inner.view(len(student), self.experts, self.exit.shape[1])
        inner = (inner * shares.unsqueeze(2)).flatten(1)  # (U, M inner)
        guessed = inner @ self.exit.flatten(0, 1) + shares @ self.exit_bias  # (U, D')
        total = (teacher - guessed).square().sum()
        return reduced(total, len(student), teacher.shape[1], self.reduction)

    def shares(self, teacher: Tensor) -> Tensor:
        """Return ``(U, M)``, the shares a of (3) of the experts."""
        logits = log_softmax(self.gate(teacher).float(), dim=1)
        if self.training:
            logits = logits - torch.empty_like(logits).exponential_().log()  # a Gumbel draw
        return (logits / max(self._tau, torch.finfo(logits.dtype).tiny)).softmax(dim=1)

    @torch.no_grad()
    def groups(self, teacher: Tensor) -> Tensor:
        """Return ``(U,)``, the likeliest expert of each of ``(U, D')`` teacher vectors."""
        groups: Tensor = self.gate(teacher).argmax(dim=1)
        return groups
