"""A sparse graph of like items, and its low-pass filter on the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class ItemGraph:
    """Edges ``i -> j`` with weights, sorted by i: row i is ``starts[i] : starts[i + 1]``.

    Attributes
    ----------
    starts
        ``(I + 1,)`` int64.
    items
        ``(E,)`` int64, the item j that an edge leads to.
    weights
        ``(E,)`` float32.
    """

    starts: Tensor
    items: Tensor
    weights: Tensor

    def edges_of(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges that leave ``(n,)`` rows: index 0..n-1 of the row, item, weight, each ``(e,)``."""
        first, counts = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        owners = torch.repeat_interleave(counts)  # (e,)
        within = torch.arange(len(owners), device=rows.device) - (counts.cumsum(0) - counts)[owners]
        at = first[owners] + within
        return owners, self.items[at], self.weights[at]

    def smooth(self, rows: Tensor, values_of: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return ``(n, D)`` rows of ((1 - alpha) identity + alpha graph) times the values of all items.

        Parameters
        ----------
        rows
            ``(n,)`` distinct items.
        values_of
            Maps ``(m,)`` distinct items to their ``(m, D)`` values; it is asked about the rows and their
            neighbours, once.
        alpha
            Weight of the graph, 0 to 1.
        """
        if not alpha:
            return values_of(rows)
        owners, others, weights = self.edges_of(rows)
        needed, places = torch.unique(torch.cat([rows, others]), return_inverse=True)
        values = values_of(needed)  # (m, D)
        own, far = values[places[: len(rows)]], values[places[len(rows) :]]  # (n, D), (e, D)
        return ((1 - alpha) * own).index_add(0, owners, (alpha * weights).unsqueeze(1).to(far.dtype) * far)


@torch.no_grad()
def nearest_graph(vectors: Tensor, known: Tensor, neighbours: int) -> ItemGraph:
    """Return the graph that joins two items if one is among the nearest of the other by cosine.

    Its weights are those of D^-1/2 A D^-1/2, where A is 1 at an edge and D holds the degrees: a filter with it
    leaves smooth values as they are. No ``(I, I)`` array is held.

    Parameters
    ----------
    vectors
        ``(I, D)`` float.
    known
        ``(I,)`` bool; other items have no edge.
    neighbours
        K, at least 1; cut to the number of other known items.
    """
    items = known.nonzero().squeeze(1)  # (I',)
    unit = normalize(vectors[items].float())
    count = min(neighbours, len(items) - 1)
    if count < 1:
        none = torch.zeros(0, dtype=torch.int64, device=vectors.device)
        starts = torch.zeros(len(vectors) + 1, dtype=torch.int64, device=vectors.device)
        return ItemGraph(starts, none, none.float())
    found = []
    for start in range(0, len(items), _ROWS_AT_ONCE):
        cosines = unit[start : start + _ROWS_AT_ONCE] @ unit.T  # (r, I')
        own = torch.arange(start, start + len(cosines), device=vectors.device)
        cosines[own - start, own] = -torch.inf
        found.append(cosines.topk(count, dim=1).indices)
    near = items[torch.cat(found)].flatten()  # (I' K)
    return _normalised(items.repeat_interleave(count), near, len(vectors))


def _normalised(first: Tensor, second: Tensor, item_count: int) -> ItemGraph:
    """Return the symmetric graph of the edges, each once, with weights 1 / sqrt(degree times degree)."""
    both = torch.unique(torch.cat([first * item_count + second, second * item_count + first]))
    source, target = both // item_count, both % item_count
    degrees = torch.bincount(source, minlength=item_count)  # (I,)
    starts = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
    scale = degrees.float().rsqrt()  # inf where there is no edge; never read
    return ItemGraph(starts, target, scale[source] * scale[target])
