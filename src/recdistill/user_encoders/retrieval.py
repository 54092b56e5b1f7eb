"""Which examples a history is shown: the most similar ones of either label that happened before it.

With t_i the text vector of item i and w the last items that are read, the vector of a history, and its similarity to
the history of an example e::

    v = Σ_{k < w} t_{h_{n-k}},   normalised to length 1               # the mean's direction                   (1)
    s(e) = v · v_e            where time(e) < time(row), else never                                            (2)

The target plays no part in it: it is what is asked. Of eq. (2) the best of each label are taken; where one label has
too few, the best of the other fill up, and where there are too few of both, places stay empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.types import PAD

#: Similarities held at once, at most: 32 MiB.
_AT_ONCE: Final = 1 << 23
_NEVER: Final = -torch.inf


@dataclass(frozen=True)
class Quota:
    """How many examples of each label a row is shown.

    Attributes
    ----------
    chosen, refused
        Examples whose shown item was the next one, and examples whose was not; together at least 1.
    """

    chosen: int = 2
    refused: int = 2

    def __post_init__(self) -> None:
        if min(self.chosen, self.refused) < 0 or not self.total:
            raise ConfigError(
                f"chosen={self.chosen} and refused={self.refused} examples are not possible. Allowed: from 0 each, "
                "one together. Set llm-cf.chosen=2 llm-cf.refused=2."
            )

    @property
    def total(self) -> int:
        """K, both together."""
        return self.chosen + self.refused


def newest_items(history: Tensor, lengths: Tensor, positions: Tensor | None, count: int) -> Tensor:
    """Return ``(S, count)`` the last items up to each position, `PAD` where there are fewer, in any order.

    Parameters
    ----------
    history, lengths, positions
        As in `recdistill.types.Batch`.
    count
        w.
    """
    width = history.shape[1]
    if positions is None:
        owner, last = torch.arange(len(history), device=history.device), lengths - 1
    else:
        owner, last = positions // width, positions % width
    steps = last[:, None] - torch.arange(count, device=history.device)  # (S, w)
    return history[owner[:, None], steps.clamp_min(0)].masked_fill(steps < 0, PAD)


def summed(table: Tensor, items: Tensor) -> Tensor:
    """Return ``(n, D)`` the sum of the vectors in a ``(I, D)`` table of the ``(n, w)`` items, `PAD` left out."""
    there = (items != PAD).to(table.dtype)
    return F.embedding_bag(items.clamp_min(0), table, mode="sum", per_sample_weights=there)


def history_vectors(text: Tensor, items: Tensor) -> Tensor:
    """Return ``(n, D)`` eq. (1) of the ``(n, w)`` newest items; zero where none has text. `text` is ``(I, D)``."""
    return F.normalize(summed(text, items), dim=1)


@dataclass(frozen=True, eq=False)
class ExampleIndex:
    """Where examples lie, by time.

    Attributes
    ----------
    vectors
        ``(M, D)`` eq. (1) of their histories.
    labels
        ``(M,)`` bool, whether the shown item was the next one.
    times
        ``(M,)`` int64, when they happened.
    order
        ``(M,)`` int64, a seeded permutation: the examples of one row are shown in ascending `order`, so that their
        place tells neither their similarity nor their label.
    """

    vectors: Tensor
    labels: Tensor
    times: Tensor
    order: Tensor

    def nearest(self, queries: Tensor, quota: Quota, before: Tensor | None = None) -> Tensor:
        """Return ``(n, K)`` indices of examples, `PAD` at the end where there are too few.

        Parameters
        ----------
        queries
            ``(n, D)`` eq. (1); a zero vector is like nothing, and gets no example.
        quota
            How many of each label.
        before
            ``(n,)`` int64: only examples with an earlier time; None: all, as for a request that is made now.
        """
        found = torch.full((len(queries), quota.total), PAD, device=queries.device)
        if not len(self.labels):
            return found
        classes = [self._members(label) for label in (True, False)]
        size = max(1, _AT_ONCE // len(self.labels))
        # in the order of time, so that a chunk multiplies with the past alone
        rows = torch.arange(len(queries), device=queries.device) if before is None else before.argsort()
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            limits = None if before is None else before[part]
            lists = [self._best(queries[part], members, quota.total, limits) for members in classes]
            found[part] = self._chosen(lists, quota)
        return found

    def _members(self, label: bool) -> Tensor:
        """Return the examples of a label, the earliest first."""
        members = (self.labels == label).nonzero()[:, 0]
        return members[self.times[members].argsort(stable=True)]

    def _best(
        self, queries: Tensor, members: Tensor, count: int, before: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return ``(n, count)`` similarities of the best members, and who they are."""
        size = len(members)
        if before is not None:
            earlier = torch.searchsorted(self.times[members], before)  # (n,) members before each row
            size = int(earlier.max())
        shape = (len(queries), count)
        scores, who = queries.new_full(shape, _NEVER), torch.full(shape, PAD, device=queries.device)
        if not size:
            return scores, who
        similar = queries @ self.vectors[members[:size]].T  # (n, size)
        if before is not None:
            similar.masked_fill_(torch.arange(size, device=queries.device) >= earlier[:, None], _NEVER)
        similar.masked_fill_((queries == 0).all(1, keepdim=True), _NEVER)
        width = min(count, size)
        best, place = similar.topk(width, dim=1)
        scores[:, :width], who[:, :width] = best, members[place]
        return scores, who

    def _chosen(self, lists: list[tuple[Tensor, Tensor]], quota: Quota) -> Tensor:
        """Return ``(n, K)`` of two lists: each label's own share first, then whoever is most similar."""
        scores, who = (torch.cat(parts, dim=1) for parts in zip(*lists, strict=True))  # (n, 2 K)
        place = torch.arange(quota.total, device=who.device)
        spare = torch.cat([place >= quota.chosen, place >= quota.refused])  # beyond the label's share
        # similarities lie in [-1, 1]: 4 apart, a spare one never comes before one of the share
        keys = torch.where(scores == _NEVER, _NEVER, scores - 4.0 * spare)
        best, at = keys.topk(quota.total, dim=1)
        chosen = who.gather(1, at)
        last = len(self.order)
        key = torch.where(best == _NEVER, last, self.order[chosen.clamp_min(0)])
        return chosen.masked_fill(best == _NEVER, PAD).gather(1, key.argsort(dim=1))
