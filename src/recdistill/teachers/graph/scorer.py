"""The transition-graph and text teacher: no training, every row, the whole distribution.

After Han et al., "An Embarrassingly Simple Graph Heuristic Reveals Shortcut-Solvable Benchmarks for Sequential
Recommendation", arXiv 2605.07125. For a history ``h_1 .. h_n`` (h_n last), with P the row-normalised graph of
`TransitionGraph` and the default weights of `GraphOptions`::

    s(j) = Σ_{k<5} 0.6^k (P[h_{n-k}, j] + 0.3 [k<2] (P²)[h_{n-k}, j])        # (1)
    t(j) = Σ_{k<5} 0.6^k cos(z_{h_{n-k}}, z_j)                               # (2)
    score(j) = √s(j) + 0.5 t(j)                                              # (3)

For a training row, P and P² are those of the graph without that row's own transitions, exactly. Two
additions of ours: items equal under (3) are ordered by popularity (a term of at most 1e-6), and
`GraphOptions.repeat_weight` may push back items that the history already holds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.teachers.graph.transitions import OwnTransitions, TransitionGraph
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_TIE_BREAK = 1e-6


@dataclass(frozen=True)
class GraphOptions:
    """The weights of eq. 1-3.

    Attributes
    ----------
    max_gap
        How far apart two events may stand to count as a transition, ≥ 1.
    backward
        Weight of the reverse direction, ≥ 0.
    last_items
        How many of the last items speak, ≥ 1.
    decay
        Weight of an item relative to the one after it, in (0, 1].
    two_hop
        Weight of the second step, ≥ 0.
    two_hop_items
        How many of the last items make a second step, ≥ 0.
    text_weight
        Weight of the text similarity, ≥ 0; without item text it is 0.
    repeat_weight
        What is left of the score, above the row's lowest, for items that are in the history already, in
        [0, 1]: 1 is eq. 3, 0 suits shops where nothing is bought twice.
    """

    max_gap: int = 3
    backward: float = 0.7
    last_items: int = 5
    decay: float = 0.6
    two_hop: float = 0.3
    two_hop_items: int = 2
    text_weight: float = 0.5
    repeat_weight: float = 1.0

    def __post_init__(self) -> None:
        limits = {"max_gap": (1, 50), "last_items": (1, 1000), "decay": (1e-9, 1), "repeat_weight": (0, 1)}
        for option in fields(self):
            value, (low, high) = getattr(self, option.name), limits.get(option.name, (0, 1e9))
            if not low <= value <= high:
                raise ConfigError(
                    f"{option.name} is {value}. Allowed: {low:g} to {high:g}. "
                    "See the options with: recdistill teach graph --help"
                )


class GraphScorer:
    """Eq. 1-3 for whole batches of histories.

    Parameters
    ----------
    dataset
        Its training events make the graph.
    text
        ``(I, D)`` item text vectors, a zero vector where an item has no text, or None.
    options
        The weights.
    graph
        The transition graph, where it was built already with the same `max_gap` and `backward`.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        text: Floats | None = None,
        options: GraphOptions | None = None,
        graph: TransitionGraph | None = None,
    ) -> None:
        self.options = options or GraphOptions()
        self.graph = graph or TransitionGraph(
            dataset, max_gap=self.options.max_gap, backward=self.options.backward
        )
        self.dataset = dataset
        self.unit_text = None if text is None else torch.from_numpy(unit_rows(text))  # (I, D)
        popularity = torch.from_numpy(dataset.popularity).float()
        self._tie_unit = _TIE_BREAK / max(1.0, float(popularity.max())) if len(popularity) else 0.0
        self._tie_break = popularity * self._tie_unit  # (I,)

    def __call__(self, history: Ints) -> Tensor:
        """Return ``(B, I)`` scores after each history of ``(B, L)``, with the whole training graph."""
        return self._score(history, None)

    def score_rows(self, rows: Ints, history: Ints) -> Tensor:
        """Return ``(B, I)`` scores of dataset rows; a training row's own transitions are left out."""
        scores = self._score(history, self.graph.own_transitions(rows))
        index = torch.from_numpy(np.flatnonzero(self.dataset.is_train(rows)))
        scores[index, torch.from_numpy(self.dataset.targets(rows))[index]] -= self._tie_unit
        return scores

    def _score(self, history: Ints, own: OwnTransitions | None) -> Tensor:
        items, weight = last_items(history, self.options.last_items, self.options.decay)  # (B, k)
        scores = torch.from_numpy(self._transitions(items, weight, own)).sqrt_()  # (B, I)
        if self.unit_text is not None and self.options.text_weight:
            near = (self.unit_text[items] * torch.from_numpy(weight)[..., None]).sum(1)  # (B, D)
            scores.addmm_(near, self.unit_text.T, alpha=self.options.text_weight)
        if self.options.repeat_weight != 1:
            push_back(scores, history, self.options.repeat_weight)
        return scores.add_(self._tie_break)

    def _transitions(self, items: Ints, weight: Floats, own: OwnTransitions | None) -> Floats:
        """Return ``(B, I)`` s of eq. 1, both steps in one product: ``(W1 + W2 P) P``."""
        width = self.dataset.item_count
        start = spread(items, weight, width)  # (B, I) sparse
        hops = self.options.two_hop_items
        if self.options.two_hop and hops:
            second = spread(items[:, :hops], self.options.two_hop * weight[:, :hops], width)
            start = sparse.csr_array(start + self.graph.step(second, own))
        return self.graph.last_step(start, own)


def last_items(history: Ints, count: int, decay: float) -> tuple[Ints, Floats]:
    """Return the last `count` items, newest first, and their weights ``decay^k``, both ``(B, count)``.

    Where a history is shorter the weight is 0 and the item 0.
    """
    lengths = (history != PAD).sum(1)  # (B,)
    index = lengths[:, None] - 1 - np.arange(count)  # (B, count)
    items = np.take_along_axis(history, np.maximum(index, 0), axis=1)
    weight = np.where(index >= 0, decay ** np.arange(count), 0.0).astype(np.float32)
    return np.maximum(items, 0), weight


def push_back(scores: Tensor, history: Ints, keep: float = 0.0) -> None:
    """Move the ``(B, I)`` scores of the history's items towards their row's lowest, in place, and `keep` that share."""
    rows, columns = np.nonzero(history != PAD)
    index = torch.from_numpy(rows), torch.from_numpy(history[rows, columns])
    lowest = scores.amin(1)[index[0]]
    scores[index] = lowest + keep * (scores[index] - lowest)


def spread(items: Ints, weight: Floats, width: int) -> sparse.csr_array:
    """Return the ``(B, width)`` sparse matrix with each row's weights at its items."""
    owner = np.repeat(np.arange(len(items)), items.shape[1])
    values = weight.astype(np.float64).ravel()
    used = values > 0
    place = owner[used], items.ravel()[used]
    return sparse.csr_array((values[used], place), shape=(len(items), width))


def unit_rows(vectors: npt.NDArray[np.floating]) -> Floats:
    """Return the vectors scaled to length 1 as float32; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
