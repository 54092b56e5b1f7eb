"""Which items can be among the k best: an 8-bit pass over the catalogue with a bound on its error.

Vectors carry their bias as one more coordinate, v_i = [w_i, b_i / c] and g = [h, c], so that a score is v_i · g.
Both are rounded to whole steps: v̂_i = s q_i with q_i in -127..127 and one step s for a column of 32 items of
similar size, ĝ = t u. With the rounding errors e_i = |v_i - v̂_i| and d = |g - ĝ| (Euclidean),

(1)  |v_i · g - v̂_i · ĝ| <= e_i |g| + |v̂_i| d =: E_i         (Cauchy-Schwarz, twice)

The k-th largest of "best approximate score of a column, minus its E" is passed by k items, one of each of k
columns. So it is a lower bound of the k-th best true score, and whoever stays below it even with E added is out.
The rest, some dozens of a million, are scored exactly (`recdistill.serve.scorer`): exact by proof, not by luck.

The product of whole numbers is onnxruntime's ``MatMulInteger``, a quarter of the memory traffic of float32; for tables
larger than a cache ``MatMulNBits``, which reads them once in order, if it comes out right on this processor.
Processors without VNNI add pairs of products in 16 bits, where 8-bit steps overflow: the largest products are tried
first, and if they come out wrong, u is kept within -63..63.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.serve.graph_bytes import INPUT, LARGEST, OUTPUT, block_size, matmul_integer, matmul_rows
from recdistill.serve.sessions import session
from recdistill.serve.table import ItemTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

#: Items of a column; they share one step.
ROWS: Final = 32
#: What marks an item that may not be answered; no product is that small.
BANNED: Final = np.int32(np.iinfo(np.int32).min)
#: Rounding of the float32 arithmetic of the bound itself, relative to |g| max |v|.
_SLACK: Final = 1e-5
_BLOCK: Final = 1 << 16
#: Bytes of a table that does not stay in the cache between two requests, and the widest row of ``MatMulNBits``.
_LARGE: Final = 1 << 23
_WIDEST: Final = 256


@dataclass(frozen=True, eq=False)
class _Workspace:
    """A result ``(m, P)`` and the bindings that make onnxruntime write into it."""

    steps: npt.NDArray[Any]
    product: npt.NDArray[Any]
    parts: list[npt.NDArray[Any]]
    bindings: list[Any]


class Prefilter:
    """Finds the candidates of the k best items.

    Parameters
    ----------
    table
        The I items.
    threads
        Of the matrix product.
    levels
        Steps on each side of zero for the hidden state, 63 or 127; None: tried out on this processor.
    large
        Bytes of whole steps from which on the table is read row by row.
    """

    def __init__(
        self, table: ItemTable, *, threads: int = 1, levels: int | None = None, large: int = _LARGE
    ) -> None:
        self.table = table
        self.columns = -(-len(table) // ROWS)
        self.bias_unit = table.bias_unit()
        size = self.columns * ROWS
        largest = table.largest_entries(self.bias_unit)  # (I,)
        order = np.full(size, -1, dtype=np.int64)
        order[: len(table)] = np.argsort(-largest, kind="stable")
        self.order = np.ascontiguousarray(order.reshape(self.columns, ROWS).T).reshape(-1)  # (P,) item, or -1
        self.place = np.empty(len(table), dtype=np.int64)  # (I,) where an item stands
        taken = np.flatnonzero(self.order >= 0)
        self.place[self.order[taken]] = taken
        self.step = np.maximum(largest[order[:size:ROWS]], np.float32(1e-30)) / np.float32(127)  # (columns,)
        self.error, self.norm = np.zeros(self.columns, np.float32), np.zeros(self.columns, np.float32)
        steps = self._steps()  # (n, P)
        self.largest_norm = float((self.norm + self.error).max())
        self._build(steps, threads, levels, large)
        self._spare: list[_Workspace] = []

    def _steps(self) -> npt.NDArray[np.int8]:
        """Return the whole steps of all items ``(n, P)`` and note each column's largest error and norm."""
        width = self.table.width + (self.bias_unit > 0)
        steps = np.zeros((width, len(self.order)), dtype=np.int8)
        for start in range(0, len(self.order), _BLOCK):
            items = self.order[start : start + _BLOCK]
            column = np.arange(start, start + len(items)) % self.columns
            vectors = self.table.vectors(np.maximum(items, 0), self.bias_unit)  # (m, n)
            vectors[items < 0] = 0
            step = self.step[column, None]
            whole = np.clip(np.rint(vectors / step), -127, 127)
            steps[:, start : start + len(items)] = whole.astype(np.int8).T
            np.maximum.at(self.error, column, np.linalg.norm(vectors - whole * step, axis=1))
            np.maximum.at(self.norm, column, np.linalg.norm(whole * step, axis=1))
        return steps

    def _build(self, steps: npt.NDArray[np.int8], threads: int, levels: int | None, large: int) -> None:
        """Make the products; each graph holds the columns' positions ``[start, stop)``."""
        width, size = steps.shape
        by_rows = steps.nbytes >= large and levels in (None, 127) and rows_are_exact(width, threads)
        self.levels = 127 if by_rows else levels or (127 if _is_exact(127, threads) else 63)
        self.kinds = (np.float32, np.float32) if by_rows else (np.uint8, np.int32)  # of steps and of products
        self.zero = 0 if by_rows else self.levels + 1
        self.banned = -np.inf if by_rows else BANNED
        most = max(1, LARGEST // (block_size(width) if by_rows else width))
        self._spans = [(start, min(start + most, size)) for start in range(0, size, most)]
        self._products = []
        for start, stop in self._spans:
            part = steps[:, start:stop]
            graph = matmul_rows(np.ascontiguousarray(part.T)) if by_rows else matmul_integer(part, self.zero)
            self._products.append(session(graph, threads))
        self.width = width

    def candidates(
        self, hidden: Floats, k: int, banned: list[Ints], allowed: Bools | None = None
    ) -> list[Ints]:
        """Return for each history the items that can be among its k best; all k best are among them.

        Parameters
        ----------
        hidden
            ``(m, H)``.
        k
            1 to the number of `columns`.
        banned
            For each history the items that may not be answered.
        allowed
            ``(I,)``, the items that may be answered; None: all.
        """
        work = self._workspace(len(hidden))
        states, unit, loss = self._round(hidden, work.steps)
        for product, binding in zip(self._products, work.bindings, strict=True):
            product.run_with_iobinding(binding)
        if len(work.parts) > 1:
            for (start, stop), part in zip(self._spans, work.parts, strict=True):
                work.product[:, start:stop] = part
        rows = [
            self._select(work.product[row], k, banned[row], allowed, states[row], unit[row], loss[row])
            for row in range(len(hidden))
        ]
        self._spare.append(work)
        return rows

    def _workspace(self, rows: int) -> _Workspace:
        """Take a spare workspace of that many rows, or make one. Lists pop and append without a race."""
        while self._spare:
            try:
                work = self._spare.pop()
            except IndexError:
                break
            if len(work.product) == rows:
                return work
        kind_in, kind_out = self.kinds
        product = np.empty((rows, len(self.order)), dtype=kind_out)
        parts = (
            [product]
            if len(self._spans) == 1
            else [np.empty((rows, stop - start), dtype=kind_out) for start, stop in self._spans]
        )
        steps = np.empty((rows, self.width), dtype=kind_in)
        bindings = [_bound(one, steps, part) for one, part in zip(self._products, parts, strict=True)]
        return _Workspace(steps, product, parts, bindings)

    def _round(self, hidden: Floats, steps: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
        """Write u + zero point into `steps`; return |g|, t and d of each row."""
        states = hidden
        if self.bias_unit > 0:
            states = np.concatenate([hidden, np.full((len(hidden), 1), self.bias_unit, np.float32)], axis=1)
        unit = np.maximum(np.abs(states).max(axis=1), np.float32(1e-30)) / np.float32(self.levels)
        whole = np.rint(states / unit[:, None])
        steps[:] = whole + self.zero
        return np.linalg.norm(states, axis=1), unit, np.linalg.norm(states - whole * unit[:, None], axis=1)

    def _select(
        self, product: npt.NDArray[Any], k: int, banned: Ints, allowed: Bools | None, *facts: Any
    ) -> Ints:
        norm, unit, loss = facts
        if allowed is not None:
            product[~allowed[np.maximum(self.order, 0)]] = self.banned
        product[self.place[banned]] = self.banned
        if len(self.table) < len(self.order):
            product[self.order < 0] = self.banned
        grid = product.reshape(ROWS, self.columns)
        scale = self.step * unit
        margin = self.error * norm + self.norm * loss + np.float32(_SLACK * self.largest_norm) * norm
        best = grid.max(axis=0) * scale  # (columns,)
        bound = np.partition(best - margin, self.columns - k)[self.columns - k]
        hit = np.flatnonzero(best + margin >= bound)
        found = grid[:, hit]  # (ROWS, hits)
        row, column = np.nonzero((found * scale[hit] + margin[hit] >= bound) & (found > self.banned))
        items: Ints = self.order[row * self.columns + hit[column]]
        return items


def _bound(product: Any, steps: npt.NDArray[Any], out: npt.NDArray[Any]) -> Any:
    """Return what makes onnxruntime read `steps` and write ``steps @ table`` into `out`, both without a copy.

    Both arrays have to stay alive and in place as long as it is used.
    """
    binding = product.io_binding()
    binding.bind_input(INPUT, "cpu", 0, steps.dtype.type, steps.shape, steps.ctypes.data)
    binding.bind_output(OUTPUT, "cpu", 0, out.dtype.type, out.shape, out.ctypes.data)
    return binding


def _is_exact(levels: int, threads: int) -> bool:
    """Tell whether the largest products come out right on this processor."""
    table = np.full((64, 64), 127, dtype=np.int8)
    table[:, ::2] = -127
    steps = np.full((1, 64), 2 * levels + 1, dtype=np.uint8)
    out = np.empty((1, 64), dtype=np.int32)
    product = session(matmul_integer(table, levels + 1), threads)
    product.run_with_iobinding(_bound(product, steps, out))
    return bool(np.array_equal(out, (steps.astype(np.int32) - levels - 1) @ table.astype(np.int32)))


def rows_are_exact(width: int, threads: int) -> bool:
    """Tell whether ``MatMulNBits`` is there, takes rows of this width without waste, and multiplies them exactly."""
    if width > _WIDEST or 2 * block_size(width) > 3 * width:
        return False
    random = np.random.default_rng(0)
    table = random.integers(-127, 128, (256, width)).astype(np.int8)
    table[0], table[1] = 127, -127
    steps = random.integers(-127, 128, (4, width)).astype(np.float32)
    steps[:, 0] = (127, -127, 127, -127)
    steps[3] = 127
    exact = steps @ table.T.astype(np.float32)
    try:
        product = session(matmul_rows(table), threads)
        for rows in (1, 4):  # one row and several are other code of onnxruntime
            out = np.empty((rows, 256), dtype=np.float32)
            product.run_with_iobinding(_bound(product, steps[:rows], out))
            if not np.array_equal(out, exact[:rows]):
                return False
    except (ValueError, RuntimeError):  # an onnxruntime without the operator, or without it for 8 bits
        return False
    return True
