"""The item-transition graph, and steps on it that leave a training row's own transitions out.

Han et al., "An Embarrassingly Simple Graph Heuristic Reveals Shortcut-Solvable Benchmarks for Sequential
Recommendation", arXiv 2605.07125.

``A[i, j]`` sums over the training sequences ``1/g`` for j following i at distance g ≤ G, and ``b/g`` for the
reverse; ``P`` is A with its rows normalised. The training row with target event q put the pairs (q-g, q) and
(q, q+g) into A itself: asked about that row, A would return the answer it was given. `TransitionGraph.step`
therefore works on ``A_b = A - D_b``, where ``D_b`` holds every pair that has the target event of row b as an
endpoint; row sums shrink with it. This is exact for one step and, repeated, for any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from recdistill.data.sequences import SequenceDataset

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# True row sums and entries are far above these, rounding residues of a subtraction far below. A residue must
# become a zero: it would stand exactly where a row's own transitions were, and so give the answer away.
_SUM_RESIDUE = 1e-9
_RESIDUE = 1e-13

# Rows at a time in a dense step: (I, 128) floats still fit the cache while A is walked through.
_BLOCK = 128
# What a pair costs in a sparse product, beside one in a product of the graph with a dense matrix: where the graph
# is sparse, and where it is full (measured on one core with 512 rows of Toys, Games and MovieLens).
_NOT_FULL, _FULL = 16, 250
# A matrix that is so full is multiplied as a dense one (MovieLens).
_DENSE_FROM = 0.1


@dataclass(frozen=True)
class OwnTransitions:
    """The entries of ``D_b`` for B rows, as a flat list of n weighted edges.

    Attributes
    ----------
    row, source, destination
        ``(n,)`` the row's index in the batch, the edge's first and second item.
    weight
        ``(n,)`` what the edge added to A.
    """

    row: Ints
    source: Ints
    destination: Ints
    weight: Doubles


class TransitionGraph:
    """Who follows whom in the training sequences.

    Parameters
    ----------
    dataset
        A pair counts where its later event is the target of a training (or prefix) row: the events that
        training may look at, and each of them once where windows overlap.
    max_gap
        G ≥ 1, how far apart two events may stand.
    backward
        b ≥ 0, weight of the reverse direction.
    """

    def __init__(self, dataset: SequenceDataset, *, max_gap: int = 3, backward: float = 0.7) -> None:
        self.dataset = dataset
        self.max_gap = max_gap
        self.backward = backward
        self._is_target = np.zeros(len(dataset.events), dtype=bool)
        self._is_target[dataset.row_events[dataset.rows("train", prefixes=True)]] = True
        self._sequence = np.repeat(np.arange(len(dataset.offsets) - 1), np.diff(dataset.offsets))
        shape = (dataset.item_count, dataset.item_count)
        forward = sparse.csr_array(shape, dtype=np.float64)
        for gap in range(
            1, max_gap + 1
        ):  # one distance at a time: the pairs of all would not fit beside each other
            first, second, weight = self._edges(gap)
            forward = forward + sparse.csr_array((weight, (first, second)), shape=shape)
        self.matrix = sparse.csr_array(forward + backward * forward.T)  # (I, I)
        self.matrix.eliminate_zeros()
        self.row_sums: Doubles = np.asarray(self.matrix.sum(axis=1), dtype=np.float64).ravel()  # (I,)
        self._columns = sparse.csr_array(self.matrix.T)
        #: Whether so many pairs follow each other that steps on it are dense.
        self.is_full = self.matrix.nnz > _DENSE_FROM * shape[0] ** 2
        single = self._columns.astype(np.float32)
        self._transposed = single.toarray() if self.is_full else single

    def _edges(self, gap: int) -> tuple[Ints, Ints, Doubles]:
        """Return first item, second item and weight of all training pairs at one distance."""
        start = np.arange(len(self.dataset.events) - gap)
        start = start[self._counts(start, start + gap)]
        items = self.dataset.events
        return items[start], items[start + gap], np.full(len(start), 1 / gap)

    def _counts(self, first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
        """Whether two events stand in one sequence and the later one is a training target."""
        inside = (first >= 0) & (second < len(self.dataset.events))
        low, high = np.maximum(first, 0), np.minimum(second, len(self.dataset.events) - 1)
        same: npt.NDArray[np.bool_] = self._sequence[low] == self._sequence[high]
        return inside & same & self._is_target[high]

    def own_transitions(self, rows: Ints) -> OwnTransitions:
        """Return the edges that the target events of the ``(B,)`` rows put into A; none for valid and test."""
        events, batch = self.dataset.row_events[rows], np.arange(len(rows))
        found: list[tuple[Ints, Ints, Ints, Doubles]] = []
        for gap in range(1, self.max_gap + 1):
            for first, second in ((events - gap, events), (events, events + gap)):
                real = self._counts(first, second)
                a, c = self.dataset.events[first[real]], self.dataset.events[second[real]]
                weight = np.full(len(a), 1 / gap)
                found.append((batch[real], a, c, weight))
                found.append((batch[real], c, a, self.backward * weight))
        return OwnTransitions(
            row=np.concatenate([edges[0] for edges in found]),
            source=np.concatenate([edges[1] for edges in found]),
            destination=np.concatenate([edges[2] for edges in found]),
            weight=np.concatenate([edges[3] for edges in found]),
        )

    def step(self, weights: sparse.csr_array, own: OwnTransitions | None = None) -> sparse.csr_array:
        """Return ``(B, I)`` ``weights @ P``, with each row's own transitions left out of its P.

        Parameters
        ----------
        weights
            ``(B, I)`` how much of each item each row starts from.
        own
            What to leave out; None: nothing.
        """
        scaled, unwanted = self._shares(weights, own)
        result = sparse.csr_array(scaled @ self.matrix - unwanted)
        result.data[result.data < _RESIDUE] = 0.0
        result.eliminate_zeros()
        return result

    def last_step(
        self, weights: sparse.csr_array | npt.NDArray[np.floating], own: OwnTransitions | None = None
    ) -> Floats:
        """Return what `step` returns as a dense ``(B, I)`` float32 array: for a step that fills it, much faster."""
        rows, items = weights.shape
        inverse = np.divide(1.0, self.row_sums, out=np.zeros(items), where=self.row_sums > _SUM_RESIDUE)
        result = np.empty((rows, items), dtype=np.float32)
        unwanted: sparse.csr_array | None = None
        if own is not None and len(own.row):
            own_share = self._own_shares(weights, own)
            unwanted = sparse.csr_array(
                (own_share * own.weight, (own.row, own.destination)), shape=weights.shape
            )
            unwanted.eliminate_zeros()
            order = own.row.argsort(kind="stable")
            edges = np.searchsorted(own.row[order], np.arange(0, rows + _BLOCK, _BLOCK))

        def fill(block: int) -> None:
            part = slice(block * _BLOCK, (block + 1) * _BLOCK)
            given = weights[part]
            shares: Doubles = np.asarray(given.toarray() if sparse.issparse(given) else given) * inverse
            if own is not None and unwanted is not None:
                mine = order[edges[block] : edges[block + 1]]
                shares[own.row[mine] - part.start, own.source[mine]] = own_share[mine]
            result[part] = (self._transposed @ np.ascontiguousarray(shares.T, dtype=np.float32)).T
            if unwanted is not None:
                self._leave_out(result[part], shares, unwanted[part])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, range(-(-rows // _BLOCK))))
        return result

    def _own_shares(
        self, weights: sparse.csr_array | npt.NDArray[np.floating], own: OwnTransitions
    ) -> Doubles:
        """Return ``(n,)`` the weight of each own edge's source over its row sum, without what is left out of that."""
        removed = sparse.csr_array((own.weight, (own.row, own.source)), shape=weights.shape)
        sums = self.row_sums[own.source] - _at(removed, own.row, own.source)
        there = _at(weights, own.row, own.source).astype(np.float64)
        return np.divide(there, sums, out=np.zeros_like(sums), where=sums > _SUM_RESIDUE)

    def _leave_out(self, result: Floats, shares: Doubles, unwanted: sparse.csr_array) -> None:
        """Put ``shares @ A - unwanted`` where `unwanted` has entries, in double precision: see _RESIDUE."""
        row, column = unwanted.tocoo().coords  # (n,)
        first = self._columns.indptr[column]
        counts = self._columns.indptr[column + 1] - first
        entry = np.repeat(
            np.arange(len(row)), counts
        )  # whose sum each pair that leads to the column goes into
        place = np.arange(len(entry)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        parts = shares[row[entry], self._columns.indices[place]] * self._columns.data[place]
        exact = np.bincount(entry, parts, minlength=len(row)) - unwanted.data
        result[row, column] = np.where(exact < _RESIDUE, 0.0, exact)

    def steps(
        self, start: sparse.csr_array, own: OwnTransitions | None = None, count: int = 1
    ) -> Iterator[Floats]:
        """Yield ``(B, I)`` float32 ``start @ P``, ``start @ P @ P``, ...: `count` steps, each by its cheapest way.

        From a few items a sparse product costs less, from many a dense one. See `_is_cheaper_sparse`.
        """
        reached: sparse.csr_array | npt.NDArray[np.floating] = start
        for left in reversed(range(count)):
            if not (sparse.issparse(reached) and self._is_cheaper_sparse(reached)):
                reached = self.last_step(reached, own)
                yield reached.copy() if left else reached
            elif left and not self.is_full:
                reached = self.step(reached, own)
                yield reached.toarray().astype(np.float32)
            else:
                reached = self._filling_step(reached, own)
                yield reached.astype(np.float32)

    def _is_cheaper_sparse(self, weights: sparse.csr_array) -> bool:
        """Whether the pairs that lead on from the weights' items are few beside those that a dense product reads."""
        pairs = int(np.diff(self.matrix.indptr)[weights.indices].sum())
        read, ratio = (self.matrix.shape[0] ** 2, _FULL) if self.is_full else (self.matrix.nnz, _NOT_FULL)
        return ratio * pairs < read * weights.shape[0]

    def _filling_step(self, weights: sparse.csr_array, own: OwnTransitions | None) -> Doubles:
        """Return what `step` returns as a dense array, from sparse weights that reach much."""
        scaled, unwanted = self._shares(weights, own)
        result: Doubles = (scaled @ self.matrix).toarray()
        row, column = unwanted.tocoo().coords
        left = result[row, column] - unwanted.data
        result[row, column] = np.where(left < _RESIDUE, 0.0, left)
        return result

    def _shares(
        self, weights: sparse.csr_array, own: OwnTransitions | None
    ) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Return ``(B, I)`` S and U with ``weights @ P_b = S @ A - U``."""
        weights.sum_duplicates()
        sums = self.row_sums[weights.indices]
        if own is not None and len(own.row):
            removed = sparse.csr_array((own.weight, (own.row, own.source)), shape=weights.shape)
            owner = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
            sums = sums - _at(removed, owner, weights.indices)
        share = np.divide(weights.data, sums, out=np.zeros_like(sums), where=sums > _SUM_RESIDUE)
        scaled = sparse.csr_array((share, weights.indices, weights.indptr), shape=weights.shape)
        if own is None or not len(own.row):
            return scaled, sparse.csr_array(weights.shape, dtype=np.float64)
        lost = _at(scaled, own.row, own.source) * own.weight
        return scaled, sparse.csr_array((lost, (own.row, own.destination)), shape=weights.shape)


def _at(
    matrix: sparse.csr_array | npt.NDArray[np.floating], rows: Ints, columns: npt.NDArray[np.integer]
) -> Doubles:
    """Return ``(n,)`` the entries of a matrix at n places."""
    return np.asarray(matrix[rows, columns]).ravel() if len(rows) else np.empty(0)
