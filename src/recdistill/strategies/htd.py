"""HTD: Hierarchical Topology Distillation, Kang et al., KDD 2021. https://arxiv.org/abs/2106.08700

The student keeps how items lie to each other rather than where they lie: cosines inside groups of like items,
and cosines with the groups' centres. Over the items of a batch, e_i the student's vectors, z_i the teacher's,
c_i an item's group, P_g the mean vector of group g in either space:

(1)  L_GA = eq. (4) of DE with K experts; the likeliest expert of an item is its group c_i
(2)  L_in = sum_{i,j: c_i = c_j} (cos(e_i, e_j) - cos(z_i, z_j))^2
(3)  L_out = sum_{g,i} (cos(P^e_g, e_i) - cos(P^z_g, z_i))^2       level "entity"
     L_out = sum_{g,h} (cos(P^e_g, P^e_h) - cos(P^z_g, P^z_h))^2   level "prototype"
(4)  L = alpha (L_in + L_out) + (1 - alpha) L_GA

=============  ==================  ========  ============  ===============================================
symbol         name in code        shape     default       where the default comes from
=============  ==================  ========  ============  ===============================================
K              groups                        30            the authors' code
c_i            groups              (U,)                    anew each step, from DE's gate
.              level                         entity        the authors' code ("second")
alpha          alpha                         0.5           the authors' code
z_i            teacher             (U, D')   128 parts     ours: cosines of raw text vectors hardly differ
tau ...                                                    as in DE
=============  ==================  ========  ============  ===============================================

Where the authors' code differs
1. It keeps only pairs with cos(z_i, z_j) > 0 in (2), by how it masks: unlike items of a group teach nothing.
2. It forms the student's centres without gradient: (3) with level "prototype" then teaches nothing at all,
   and with level "entity" it pulls the items alone.
3. It sums over all pairs and items. ``variant="clean"`` takes all pairs, lets the centres learn, and takes the
   mean over the pairs of (2), over those of (3), and over items and dimensions in (1), so that lambda does not
   depend on the batch. ``variant="official"`` is theirs in all three.
4. It divides by norms that can be 0. Here the cosine with a zero vector is 0, without gradient.

With one group and level "prototype", (2) is topology distillation over all pairs (FTD).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from recdistill.strategies.base import Strategy
from recdistill.strategies.de import DE
from recdistill.strategies.item_vectors import Table, batch_items, student_vectors
from recdistill.strategies.options import one_of, share
from recdistill.types import Batch, StudentOutput, Task

Variant = Literal["clean", "official"]
Level = Literal["entity", "prototype"]

_TINY = 1e-12


class HTD(Strategy):
    """Hierarchical Topology Distillation, eq. (4).

    Parameters
    ----------
    variant
        ``"clean"`` or ``"official"``, see differences 1 to 3.
    groups
        K, at least 1.
    level
        What is compared with the centres: each ``"entity"``, or each other ``"prototype"``.
    alpha
        Weight of the topology against the group assignment, 0 to 1.
    table, standardise, rank, tau_start, tau_end, epochs, tau_floor, most_items
        As in `DE`.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"item_embeddings"})

    def __init__(
        self,
        *,
        variant: Variant = "clean",
        groups: int = 30,
        level: Level = "entity",
        alpha: float = 0.5,
        table: Table = "input",
        standardise: bool = True,
        rank: int | None = 128,
        tau_start: float = 1.0,
        tau_end: float = 1e-10,
        epochs: int = 100,
        tau_floor: float = 1e-3,
        most_items: int | None = None,
    ) -> None:
        super().__init__()
        one_of("variant", variant, ("clean", "official"))
        one_of("level", level, ("entity", "prototype"))
        share("alpha", alpha)
        self.variant: Variant = variant
        self.level: Level = level
        self.groups, self.alpha = groups, alpha
        self.table, self.standardise, self.rank = table, standardise, rank
        self.tau_start, self.tau_end, self.epochs, self.tau_floor = tau_start, tau_end, epochs, tau_floor
        self.assignment = DE(
            experts=groups,
            table=table,
            reduction="dimension" if variant == "clean" else "sum",
            standardise=standardise,
            rank=rank,
            tau_start=tau_start,
            tau_end=tau_end,
            epochs=epochs,
            tau_floor=tau_floor,
            most_items=most_items,
        )

    def prepare(self, task: Task) -> None:
        """Bring the teacher's vectors into the space of the loss and make the assignment's gate and experts."""
        self.assignment.prepare(task)

    def on_epoch(self, epoch: int) -> None:
        """Set the temperature of the assignment."""
        self.assignment.on_epoch(epoch)

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss (4) over the distinct items of the batch that have a teacher's vector."""
        items = batch_items(batch, self.assignment.known, self.assignment.most_items)  # (U,)
        student = student_vectors(output, items, self.assignment.table).float()  # (U, d)
        teacher = self.assignment.teacher[items]  # (U, D')
        topology = self.topology(student, teacher, self.assignment.groups(teacher))
        return self.alpha * topology + (1 - self.alpha) * self.assignment.rebuild(student, teacher)

    def topology(self, student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
        """Return L_in + L_out, eq. (2) and (3), of U items with their ``(U,)`` groups."""
        official = self.variant == "official"
        inside = inside_groups(student, teacher, groups, positive_only=official)
        outside = across_groups(student, teacher, groups, self.level, fixed_centres=official)
        if official:
            return inside.sum() + outside.sum()
        # a pair (i, i) never differs: it is no pair to take the mean over
        pairs = int(torch.bincount(groups).square().sum()) - len(groups)
        return inside.sum() / max(1, pairs) + (outside.mean() if outside.numel() else outside.sum())


def inside_groups(student: Tensor, teacher: Tensor, groups: Tensor, *, positive_only: bool) -> Tensor:
    """Return ``(G,)``, eq. (2) of each group that has items; one small matrix of pairs a group."""
    order = groups.argsort(stable=True)
    counts: list[int] = [count for count in torch.bincount(groups).tolist() if count]
    losses = [student.new_zeros(())]
    student, teacher = unit(student)[order], unit(teacher)[order]
    parts = zip(torch.split(student, counts), torch.split(teacher, counts), strict=True)
    for ours, theirs in parts:
        wanted = theirs @ theirs.T  # (n, n)
        gaps = (ours @ ours.T - wanted).square()
        losses.append((gaps * (wanted > 0) if positive_only else gaps).sum())
    return torch.stack(losses)


def across_groups(
    student: Tensor, teacher: Tensor, groups: Tensor, level: Level, *, fixed_centres: bool
) -> Tensor:
    """Return the ``(G, U)`` or ``(G, G)`` squared differences of eq. (3), over the groups that have items."""
    if not len(groups):
        return student.new_zeros((0, 0))
    members = one_hot(groups).T.to(student.dtype)  # (K, U)
    members = members[members.sum(1) > 0]
    means = members / members.sum(1, keepdim=True)  # (G, U)
    ours, theirs = means @ student, means @ teacher
    ours = unit(ours.detach() if fixed_centres else ours)
    theirs = unit(theirs)
    if level == "prototype":
        return (ours @ ours.T - theirs @ theirs.T).square()
    return (ours @ unit(student).T - theirs @ unit(teacher).T).square()


def unit(vectors: Tensor) -> Tensor:
    """Return the vectors at length 1; a zero vector stays zero and gets no gradient."""
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    there = lengths > _TINY
    return torch.where(there, vectors / torch.where(there, lengths, 1.0), 0.0)
