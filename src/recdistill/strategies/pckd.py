"""PCKD: preference-consistent distillation, Zhu and Zhang, TKDE 2025. https://arxiv.org/abs/2311.04549

Hint compares a projection of the student's vectors with the teacher's. A projector that is free to do so may
absorb what it was meant to pass on: after it, a user prefers other items than before. PCKD adds a term that
holds the preferences of a few items together before and after the projection. It teaches the projectors alone:
hidden states and item vectors enter it without gradient. Of a row with the hidden state h and Q items drawn
from the student's best, e_i the student's vectors:

(1)  L = L_hint + alpha L_pref                           L_hint: eq. (1) of Hint through r
(2)  before_i = score of item i,  after_i = r_row(h) . r(e_i)
(3)  L_pref = -sum_i softmax(before / tau)_i log softmax(after / tau)_i             kind "list"
     L_pref = mean_{i<j} softplus(-(after_i - after_j) (before_i - before_j))       kind "pair"
(4)  p(item of the student's rank k) is proportional to exp(-(k+1) / T), k = 0 .. W-1

=============  ========================  ============  ==================================================
symbol         name in code              default       where the default comes from
=============  ========================  ============  ==================================================
alpha          alpha                     0.1           the authors' code
Q              samples                   5             the authors' code
T              sampling_temperature      10            the authors' code
W              pool                      100           the authors' code
tau            temperature               0.1           the authors' code
.              rows                      256           ours: rows of a batch that (3) looks at
r, r_row       regressor, row_regressor  linear        as in Hint
=============  ========================  ============  ==================================================

Where the authors' code differs
1. It has users with vectors of their own, and a teacher's vector for each. Here the row's hidden state stands
   for the user; no teacher's vector belongs to it, so that r_row learns from (3) alone.
2. It draws the items of (4) once an epoch. Here they are drawn each step, from the present scores.
3. It looks at every row. The projectors have few parameters: `rows` of a batch suffice, and cost less.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from recdistill.errors import ConfigError
from recdistill.strategies.hint import Hint
from recdistill.strategies.item_vectors import Reduction, Table, make_regressor, student_vectors
from recdistill.strategies.options import not_negative, one_of, positive
from recdistill.strategies.student_lists import top_columns
from recdistill.types import Batch, StudentOutput, Task

Kind = Literal["list", "pair"]


class PCKD(Hint):
    """Hint whose projector keeps preferences, eq. (1).

    Parameters
    ----------
    kind
        ``"list"`` or ``"pair"`` in (3).
    alpha
        Weight of (3); 0 or more.
    samples
        Q, at least 2.
    pool, sampling_temperature
        W >= Q and T > 0 of (4).
    temperature
        tau > 0 of kind ``"list"``.
    rows
        Rows of a batch that (3) looks at, at least 1.
    regressor, hidden, table, reduction, standardise, rank
        As in `Hint`.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    def __init__(
        self,
        *,
        kind: Kind = "list",
        alpha: float = 0.1,
        samples: int = 5,
        pool: int = 100,
        sampling_temperature: float = 10.0,
        temperature: float = 0.1,
        rows: int = 256,
        regressor: Literal["linear", "mlp"] = "linear",
        hidden: int | None = None,
        table: Table = "input",
        reduction: Reduction = "dimension",
        standardise: bool = True,
        rank: int | None = None,
    ) -> None:
        super().__init__(
            regressor=regressor,
            hidden=hidden,
            table=table,
            reduction=reduction,
            standardise=standardise,
            rank=rank,
        )
        one_of("kind", kind, ("list", "pair"))
        not_negative(alpha=alpha)
        _check_draw(samples, pool)
        positive(sampling_temperature=sampling_temperature, temperature=temperature, rows=rows)
        self.kind, self.alpha, self.samples, self.pool = kind, alpha, samples, pool
        self.sampling_temperature, self.temperature, self.rows = sampling_temperature, temperature, rows
        self.row_regressor: nn.Module = nn.Identity()

    def prepare(self, task: Task) -> None:
        """Make Hint's teacher and regressor, and the projector of hidden states.

        Raises
        ------
        KnowledgeError
            There are no item vectors.
        """
        super().prepare(task)
        self.row_regressor = make_regressor(
            self.regressor_kind, task.hidden_size, self.teacher.shape[1], self.hidden
        )

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss (1)."""
        hint = super().forward(output, batch)
        return hint + self.alpha * self.preference(output) if self.alpha else hint

    def preference(self, output: StudentOutput) -> Tensor:
        """Return L_pref, the mean of (3) over some rows of the batch; its gradient goes to the projectors alone."""
        with torch.no_grad():
            count = len(output.hidden)
            chosen = torch.randperm(count, device=output.hidden.device)[: self.rows]  # (R,)
            hidden = output.hidden[chosen]
            scores = hidden @ output.item_table.T  # (R, I)
            scores = scores if output.item_bias is None else scores + output.item_bias
            items = self.draw(scores)  # (R, Q)
            before = scores.gather(1, items).float()
            vectors = student_vectors(output, items.flatten(), self.table)
        after = self.regressor(vectors).view(*items.shape, -1) @ self.row_regressor(hidden).unsqueeze(2)
        return self.consistency(before, after.squeeze(2).float())

    def draw(self, scores: Tensor) -> Tensor:
        """Return ``(R, Q)`` different items of each row, drawn by (4) from its W best of ``(R, I)`` scores."""
        pool = top_columns(scores, min(self.pool, scores.shape[1]))  # (R, W), in no order
        order = scores.gather(1, pool).argsort(dim=1, descending=True)
        weights = -torch.arange(1, pool.shape[1] + 1, device=scores.device) / self.sampling_temperature
        noise = -torch.empty(pool.shape, device=scores.device).exponential_().log()  # Gumbel: no replacement
        places = (weights + noise).topk(min(self.samples, pool.shape[1]), dim=1).indices
        return pool.gather(1, order.gather(1, places))

    def consistency(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the mean of (3) over rows, for ``(R, Q)`` scores before and after the projection."""
        if self.kind == "list":
            return cross_entropy(after / self.temperature, (before / self.temperature).softmax(dim=1))
        first, second = torch.triu_indices(before.shape[1], before.shape[1], 1, device=before.device)
        gaps = (after[:, first] - after[:, second]) * (before[:, first] - before[:, second])
        return softplus(-gaps).mean()


def _check_draw(samples: int, pool: int) -> None:
    """Refuse numbers of items among which there is no preference, or that cannot be drawn."""
    if not 2 <= samples <= pool:
        raise ConfigError(
            f"samples is {samples} and pool is {pool}. Allowed: 2 <= samples <= pool. "
            "Set them in the strategy's options."
        )
