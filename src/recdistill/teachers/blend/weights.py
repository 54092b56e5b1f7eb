"""Learning how much each signal counts, from validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import DataError
from recdistill.teachers.base import some_rows
from recdistill.teachers.blend.signals import Signals

Ints = npt.NDArray[np.int64]

#: Best items of each signal, then of the blend, that stand against the true one.
_CANDIDATES = 100
#: Strength of the penalty on weights of signals of variance 1: it decides only where two say the same.
_RIDGE = 1e-3
#: Times that the candidates are chosen by the blend itself: the weights have settled by then.
_ROUNDS = 3
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Candidates:
    """The signals at the n candidates of B rows, and which of them are the true items.

    Attributes
    ----------
    owner
        ``(n,)`` the row of each candidate, 0..B-1, ascending.
    values
        ``(n, S)``, or ``(n, 2 S)`` where trust depends on the evidence: the signals, then each times that of its row.
    truth
        ``(B,)`` places of the true items.
    """

    owner: Tensor
    values: Tensor
    truth: Tensor


def learn_weights(
    signals: Signals, *, length: int = 50, max_rows: int = 4096
) -> dict[str, tuple[float, float]]:
    """Return each signal's weight, and what evidence adds to it, under which validation rows' true items are likeliest.

    A row with evidence e, see `Signals.evidence`, trusts a signal with ``weight + e · added``.

    The likelihood is that of a softmax over some new items of each row: first those which any signal has among its
    hundred best, then, three times, the hundred best of them under the weights so far. No sum of signals is right about
    all items, and a ranking is judged by its first ones. Rows whose true item is not among them are left out.

    Parameters
    ----------
    signals
        Of a dataset with validation rows.
    length
        How much of a history the signals get.
    max_rows
        At most so many validation rows, evenly spread.

    Raises
    ------
    DataError
        There is no validation row, or no signal finds any of their items.
    """
    rows = some_rows(signals.dataset.rows("valid"), max_rows)
    candidates = candidates_of(signals, rows, length)
    if not len(candidates.truth):
        raise DataError(
            f"the weights of a blend are learned from validation rows, and of the {len(rows)} of dataset "
            f"{signals.dataset.name!r} no signal finds an item. Use: recdistill teach graph --no-tune"
        )
    found, count = settle(candidates).tolist(), len(signals.names)
    added = found[count:] or [0.0] * count
    return dict(zip(signals.names, zip(found[:count], added, strict=True), strict=True))


def settle(candidates: Candidates) -> Tensor:
    """Return ``(S,)`` weights, fitted to all candidates, then to the best of them under the weights so far."""
    weights = fit(candidates)
    for _ in range(_ROUNDS):
        weights = fit(best_of(candidates, weights, _CANDIDATES))
    return weights


def fit(candidates: Candidates) -> Tensor:
    """Return ``(S,)`` the weights that maximise the mean log-probability of the true items (L-BFGS).

    Minimised is ``-mean_b log softmax_b(w · x)[truth] + 0.001 |w σ|²`` with σ the signals' standard deviations.
    """
    deviation = candidates.values.std(0).clamp_min(1e-9)  # (S,)
    values = candidates.values / deviation
    weights = torch.zeros(values.shape[1], requires_grad=True)
    steps = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        scores = values @ weights  # (n,)
        total = _logsumexp(scores, candidates.owner, len(candidates.truth))
        value = (total - scores[candidates.truth]).mean() + _RIDGE * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    steps.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach() / deviation


def best_of(candidates: Candidates, weights: Tensor, k: int) -> Candidates:
    """Return the k best candidates of each row under the weights, of rows whose true item is one of them.

    If no row has its true item among them, all candidates are returned.
    """
    count = len(candidates.truth)
    scores = candidates.values @ weights  # (n,)
    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[candidates.owner[by_score].argsort(stable=True)]
    sizes = torch.bincount(candidates.owner, minlength=count)  # (B,)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    found = place[candidates.truth] < k  # (B,)
    if not bool(found.any()):
        return candidates
    kept = (place < k) & found[candidates.owner]
    where = kept.cumsum(0) - 1
    renumbered = (found.cumsum(0) - 1)[candidates.owner[kept]]
    return Candidates(renumbered, candidates.values[kept], where[candidates.truth[found]])


def candidates_of(signals: Signals, rows: Ints, length: int) -> Candidates:
    """Return the new items which any signal has among its hundred best, of the rows whose true item is one of them."""
    parts = [_candidates(signals, rows[i : i + _BATCH], length) for i in range(0, len(rows), _BATCH)]
    return _joined(parts)


def _candidates(signals: Signals, rows: Ints, length: int) -> Candidates:
    """Return the signals at the new items which any of them has among its best."""
    history = signals.dataset.histories(rows, length)
    scores = [values for _, values in signals(history, rows)]
    some = min(_CANDIDATES, scores[0].shape[1])
    best = torch.cat([values.topk(some, 1).indices for values in scores], 1)
    chosen = torch.zeros(scores[0].shape, dtype=torch.bool).scatter_(1, best, value=True)
    chosen[tuple(torch.from_numpy(one) for one in signals.dataset.seen(rows))] = False
    targets = torch.from_numpy(signals.dataset.targets(rows))[:, None]
    chosen &= chosen.gather(1, targets)  # without its true item a row says nothing
    owner, item = chosen.nonzero(as_tuple=True)  # (n,)
    renumbered = torch.unique(owner, return_inverse=True)[1]
    truth = (item == targets[owner, 0]).nonzero().squeeze(1)  # one in each row that is left
    values = torch.stack([one[owner, item] for one in scores], 1)  # (n, S)
    if signals.hears_evidence:
        values = torch.cat([values, values * signals.evidence(history, rows)[owner, None]], 1)
    return Candidates(renumbered, values, truth)


def _joined(parts: list[Candidates]) -> Candidates:
    if not parts:
        nothing = torch.empty(0, dtype=torch.int64)
        return Candidates(nothing, torch.empty(0, 0), nothing)
    rows = np.cumsum([0, *(len(part.truth) for part in parts)])
    places = np.cumsum([0, *(len(part.owner) for part in parts)])
    return Candidates(
        torch.cat([part.owner + int(first) for part, first in zip(parts, rows[:-1], strict=True)]),
        torch.cat([part.values for part in parts]),
        torch.cat([part.truth + int(first) for part, first in zip(parts, places[:-1], strict=True)]),
    )


def _logsumexp(scores: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return ``(count,)`` the log of the summed exponentials of each owner's scores."""
    highest = torch.full((count,), -torch.inf).scatter_reduce(0, owner, scores.detach(), "amax")
    summed = torch.zeros(count).index_add(0, owner, (scores - highest[owner]).exp())
    return summed.log() + highest
