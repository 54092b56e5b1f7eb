"""The ceiling: where the true distribution of the simulated shop ranks what was really bought.

Two oracles, which differ in what they know:

* ``taste``: everything the generator knows at that moment, the shopper's hidden taste included. No model can
  know it, so this is an upper bound.
* ``history``: the whole history with its times, and the generator's rules. It infers the taste by the forward
  algorithm of a hidden Markov model; its ranking is the Bayes-optimal one for anything that reads histories.

Both hold on average over rows; on a single row luck may beat them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import gather_windows
from recdistill.data.simulator_model import MEMORY, Floats, Ints, NextItemModel, recent_items
from recdistill.types import PAD

Oracle = Literal["taste", "history"]
ORACLES: Final[tuple[Oracle, ...]] = ("taste", "history")

_ROWS = 4096  # rows whose histories are followed at once
_CELLS = 1 << 20  # numbers in one block of scores: 8 MiB


@dataclass(frozen=True, eq=False)
class ShopLog:
    """What happened in the shop, and the hidden taste behind it.

    Attributes
    ----------
    events, timestamps, tastes
        ``(E,)`` items, seconds since 1970 and true tastes, shopper after shopper, oldest first.
    offsets
        ``(U + 1,)`` where each shopper starts.
    """

    events: Ints
    timestamps: Ints
    tastes: Ints
    offsets: Ints


def pessimistic_ranks(scores: Floats, targets: Ints) -> Ints:
    """Return ``(n,)`` 0-based ranks of the targets in ``(n, I)`` scores; an equal score counts as better."""
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    ahead: Ints = (scores >= target_scores).sum(axis=1)  # the target itself is one of them
    return ahead - 1


def ranking_metrics(ranks: Ints, ks: tuple[int, ...] = (1, 5, 10, 20, 50)) -> dict[str, float]:
    """Return ``hr@k``, ``ndcg@k`` and ``mrr@k`` of ``(n,)`` 0-based ranks, averaged; {} without rows."""
    if not len(ranks):
        return {}
    gains = {"hr": np.ones(len(ranks)), "ndcg": 1 / np.log2(ranks + 2.0), "mrr": 1 / (ranks + 1.0)}
    return {f"{name}@{k}": float((gain * (ranks < k)).mean()) for k in ks for name, gain in gains.items()}


def taste_beliefs(model: NextItemModel, bought: Ints, times: Ints) -> Iterator[Floats]:
    """Yield for each step the oracle's weight of each taste, given everything before that step.

    The weight is the filtered probability of taste k divided by k's open mass
    ``Z_k = Σ_x open(x) · mixture(x | k)``, so that `NextItemModel.scores` gives the exact p(x | history).

    Parameters
    ----------
    model
        The true distribution.
    bought
        ``(n, T)`` items in order, `PAD` after the last.
    times
        ``(n, T)`` their times.

    Yields
    ------
    T arrays ``(n, K)``. Rows that have ended keep their last belief.
    """
    n = len(bought)
    rows = np.arange(n)
    belief = np.broadcast_to(model.first_taste, (n, model.taste_count))
    open_cells = np.broadcast_to(model.cell_mass, (n, model.taste_count)).copy()  # (n, K), without late items
    late = _LateMass(model)
    for step in range(bought.shape[1]):
        item, now = bought[:, step], times[:, step]
        follow_items, follow_terms = model.follow_terms(recent_items(bought, step))  # (n, 3M)
        is_open = model.released[follow_items] <= now[:, None]
        for earlier in range(step):
            is_open &= follow_items != bought[:, earlier, None]
        mass = (open_cells - late.at(now)) @ model.rate.T  # (n, K)
        mass += (follow_terms * is_open).sum(axis=1, keepdims=True)
        weights = belief / mass
        yield weights

        alive = item != PAD
        likelihood = model.weight[item, None] * model.rate[:, model.cell[item]].T  # (n, K)
        likelihood += (follow_terms * (follow_items == item[:, None])).sum(axis=1, keepdims=True)
        posterior = weights * likelihood
        posterior /= posterior.sum(axis=1, keepdims=True)
        belief = np.where(alive[:, None], posterior @ model.transition, belief)
        open_cells[rows[alive], model.cell[item[alive]]] -= model.weight[item[alive]]


class _LateMass:
    """How much popularity of each cell is not released yet, at any time."""

    def __init__(self, model: NextItemModel) -> None:
        late = np.flatnonzero(model.released > 0)
        late = late[np.argsort(model.released[late], kind="stable")]
        self.times = model.released[late]
        mass = np.zeros((len(late) + 1, model.taste_count))
        mass[np.arange(len(late)), model.cell[late]] = model.weight[late]
        self.mass = np.cumsum(mass[::-1], axis=0)[::-1]  # (late + 1, K)

    def at(self, now: Ints) -> Floats:
        """Return ``(n, K)`` for ``(n,)`` times."""
        return self.mass[np.searchsorted(self.times, now, side="right")]


def oracle_ranks(
    model: NextItemModel, log: ShopLog, oracle: Oracle, rows: Ints, competing: npt.NDArray[np.bool_]
) -> Ints:
    """Return the oracle's 0-based rank of each asked event among the items that compete.

    Parameters
    ----------
    model, log
        The true distribution, and what was drawn from it.
    oracle
        ``"taste"`` or ``"history"``, see the module's docstring.
    rows
        ``(n,)`` ascending indices into the log's events: the targets.
    competing
        ``(I,)`` which items a model could have answered.

    Returns
    -------
    ``(n,)`` int64. Work goes in blocks: memory does not grow with n times I.
    """
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    return np.concatenate([np.empty(0, np.int64), *(_ranks(model, log, oracle, p, competing) for p in parts)])


def _ranks(
    model: NextItemModel, log: ShopLog, oracle: Oracle, rows: Ints, competing: npt.NDArray[np.bool_]
) -> Ints:
    """Return the ranks of one block of rows."""
    owners = np.searchsorted(log.offsets, rows, side="right") - 1  # (b,)
    steps = rows - log.offsets[owners]  # (b,)
    before = gather_windows(log.events, log.offsets[owners], steps, max(int(steps.max()), 1))  # (b, T)
    if oracle == "taste":
        belief = np.eye(model.taste_count)[log.tastes[rows]]  # (b, K)
    else:
        belief = _beliefs_at(model, log, owners, steps)
    recent = _recent_before(before, steps)
    ranks = np.empty(len(rows), dtype=np.int64)
    block = max(1, _CELLS // len(model.items))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        scores = model.scores(belief[part], recent[part], before[part], log.timestamps[rows[part]])
        scores[:, ~competing] = -1.0
        ranks[part] = pessimistic_ranks(scores, log.events[rows[part]])
    return ranks


def _beliefs_at(model: NextItemModel, log: ShopLog, owners: Ints, steps: Ints) -> Floats:
    """Return ``(b, K)`` the taste weights of shopper `owners` before their event number `steps`."""
    users, row_user = np.unique(owners, return_inverse=True)
    counts = np.zeros(len(users), dtype=np.int64)
    np.maximum.at(counts, row_user, steps + 1)
    width = int(counts.max())
    bought = gather_windows(log.events, log.offsets[users], counts, width)  # (u, T)
    times = gather_windows(log.timestamps, log.offsets[users], counts, width)
    beliefs = np.empty((len(steps), model.taste_count))
    for step, weights in enumerate(taste_beliefs(model, bought, times)):
        asked = steps == step
        beliefs[asked] = weights[row_user[asked]]
    return beliefs


def _recent_before(before: Ints, steps: Ints) -> Ints:
    """Return ``(b, 3)`` the last items of ``(b, T)`` histories of `steps` items, newest first."""
    places = steps[:, None] - 1 - np.arange(len(MEMORY))
    found = np.take_along_axis(before, np.maximum(places, 0), axis=1)
    return np.where(places >= 0, found, PAD)
