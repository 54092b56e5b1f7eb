"""The query of the teacher `embedding`, and its training.

With z_i the whitened text vector of item i and h_n the last item of a history::

    q = s (b + M_0 a_0 z_{h_n} + M_1 a_1 z_{h_{n-1}} + M_2 Σ_{2≤k<L} a_k z_{h_{n-k}})   # (1)
    score(i) = q · z_i                                                              # (2)
    loss = -log( e^{score(y)} / (e^{score(y)} + (I-1)/m Σ_{j∈sample} e^{score(j)}) )      # (3)

Eq. 3 is the softmax over the catalogue, estimated from m uniformly drawn items. Nothing in the model
belongs to one item, so it ranks items that were never bought as well. Untrained it is the cosine-like similarity to
a decaying mean of the history, which is hard to beat at the top of the list: training can lower eq. 3 and worsen
NDCG@20. So the start is one of the candidates, validation NDCG@20 picks among them, and s is then set to where the
true items of validation are likeliest.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.teachers import base
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]

# The last item and the one before have a map of their own, all older ones share the third.
_MAPS = 3

# Candidates for 1 / s after training, as multiples of the trained one.
_TEMPERATURES = tuple(2.0 ** (k / 4) for k in range(-12, 13))
_VALID_ROWS = 2048


@dataclass(frozen=True)
class EmbeddingOptions:
    """How the query is trained.

    Attributes
    ----------
    last_items
        L of eq. 1, ≥ 1.
    folds
        F ≥ 2.
    epochs, patience
        At most so many passes, and how many without a better validation NDCG@20 end the training.
    batch_size
        Rows a step.
    negatives
        m of eq. 3; 0: the whole catalogue.
    learning_rate, weight_decay
        Of AdamW.
    """

    last_items: int = 8
    folds: int = 3
    epochs: int = 20
    patience: int = 2
    batch_size: int = 512
    negatives: int = 2048
    learning_rate: float = 2e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        low = {"folds": 2, "negatives": 0, "weight_decay": 0, "learning_rate": 1e-9}
        for option in fields(self):
            value, least = getattr(self, option.name), low.get(option.name, 1)
            if not value >= least:
                raise ConfigError(
                    f"{option.name} is {value}. Allowed: from {least}. "
                    "See the options with: recdistill teach embedding --help"
                )


class TextQuery(nn.Module):
    """Eq. 1.

    Parameters
    ----------
    table
        ``(I, D)`` item text vectors, not trained.
    last_items
        L.
    """

    table: Tensor

    def __init__(self, table: Tensor, last_items: int) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        width = table.shape[1]
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(width)))  # log s
        self.lag = nn.Parameter(0.6 ** torch.arange(last_items))  # a_k
        self.maps = nn.Parameter(torch.eye(width).repeat(_MAPS, 1, 1))  # (3, D, D)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, history: Tensor) -> Tensor:
        """Return ``(B, D)`` queries for ``(B, L)`` items, newest first, `PAD` at the end."""
        present = (history != PAD).unsqueeze(-1)
        vectors = self.table[history.clamp_min(0)] * present * self.lag.unsqueeze(-1)  # (B, L, D)
        query = self.bias + vectors[:, 0] @ self.maps[0]
        if vectors.shape[1] > 1:
            query = query + vectors[:, 1] @ self.maps[1]
        return self.log_scale.exp() * (query + vectors[:, 2:].sum(1) @ self.maps[2])


def newest_first(dataset: SequenceDataset, rows: Ints, count: int) -> Ints:
    """Return ``(n, count)`` the last items of each history, newest first, `PAD` where it is shorter."""
    steps = np.arange(1, count + 1)
    index = np.maximum(dataset.row_events[rows][:, None] - steps, 0)  # (n, count)
    known = steps <= dataset.history_lengths(rows)[:, None]
    return np.where(known, dataset.events[index], PAD)


def newest_of(history: Ints, count: int) -> Ints:
    """Return ``(B, count)`` the last items, newest first, of ``(B, L)`` histories that run from old to new."""
    index = (history != PAD).sum(1)[:, None] - 1 - np.arange(count)  # (B, count)
    items = np.take_along_axis(history, np.maximum(index, 0), axis=1)
    return np.where(index >= 0, items, PAD)


def sampled_loss(
    model: TextQuery, history: Tensor, targets: Tensor, negatives: int, generator: torch.Generator
) -> Tensor:
    """Return eq. 3 for ``(B, L)`` histories; the sample is shared by the batch, hits of the target are dropped."""
    query = model(history)  # (B, D)
    item_count = len(model.table)
    if not 0 < negatives < item_count:
        return cross_entropy(query @ model.table.T, targets)
    sample = torch.randint(item_count, (negatives,), generator=generator)
    others = query @ model.table[sample].T + float(np.log((item_count - 1) / negatives))  # (B, m)
    others = others.masked_fill(sample == targets[:, None], -torch.inf)
    own = (query * model.table[targets]).sum(1, keepdim=True)  # (B, 1)
    return cross_entropy(torch.cat([own, others], 1), torch.zeros_like(targets))


def fit(
    dataset: SequenceDataset,
    table: Tensor,
    rows: Ints,
    options: EmbeddingOptions,
    *,
    seed: int = 0,
    progress: base.Progress | None = None,
) -> TextQuery:
    """Train a query on the rows, until NDCG@20 on validation rows stops rising.

    Parameters
    ----------
    dataset
        Where rows and validation rows come from; without validation rows all epochs are run and s is as trained.
    table
        ``(I, D)`` float32.
    rows
        ``(n,)`` positions of the rows to train on.
    options
        See `EmbeddingOptions`.
    seed
        Of the order of rows and the samples.
    progress
        Called with the rows of each finished step.
    """
    generator = torch.Generator().manual_seed(seed)
    model = TextQuery(table, options.last_items)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    history = torch.from_numpy(newest_first(dataset, rows, options.last_items))  # (n, L)
    targets = torch.from_numpy(dataset.targets(rows))
    valid = base.some_rows(dataset.rows("valid"), _VALID_ROWS)
    best, best_state, since = quality(model, dataset, valid), copy.deepcopy(model.state_dict()), 0
    for _ in range(options.epochs):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows), options.batch_size):
            batch = order[start : start + options.batch_size]
            loss = sampled_loss(model, history[batch], targets[batch], options.negatives, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if progress is not None:
                progress(len(batch))
        reached = quality(model, dataset, valid)
        if reached > best:
            best, best_state, since = reached, copy.deepcopy(model.state_dict()), 0
        elif len(valid):
            since += 1
            if since >= options.patience:
                break
    if len(valid):
        model.load_state_dict(best_state)
        _calibrate(model, dataset, valid)
    return model


def quality(model: TextQuery, dataset: SequenceDataset, rows: Ints) -> float:
    """Return NDCG@20 on the rows, seen items kept; 0 without rows."""
    length = len(model.lag)
    return base.ndcg(base.ranks_of_rows(_scorer(model), dataset, rows, length=length)[0])


@torch.no_grad()
def _calibrate(model: TextQuery, dataset: SequenceDataset, rows: Ints) -> None:
    """Set s to where the rows' true items are likeliest; the ranking stays."""
    length = len(model.lag)
    tau = base.best_temperature(_scorer(model), dataset, rows, length=length, grid=_TEMPERATURES)
    model.log_scale.sub_(math.log(tau))


def _scorer(model: TextQuery) -> base.RowScorer:
    @torch.no_grad()
    def score(_: Ints, history: Ints) -> Tensor:
        newest = torch.from_numpy(newest_of(history, len(model.lag)))
        scores: Tensor = model(newest) @ model.table.T
        return scores

    return score
