"""The item vectors as they were exported, float32, float16 or int8, read a few rows at a time."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_BLOCK: Final = 1 << 15


class ItemTable:
    """``(I, H)`` item vectors, with one scale an item if they are int8, and biases where the student has such.

    Parameters
    ----------
    values
        ``(I, H)`` float32, float16 or int8.
    scale
        ``(I,)``, with int8 only: vector i is ``scale[i] * values[i]``.
    bias
        ``(I,)``, added to the scores.
    """

    def __init__(
        self,
        values: npt.NDArray[Any],
        scale: npt.NDArray[Any] | None = None,
        bias: npt.NDArray[Any] | None = None,
    ) -> None:
        self.values = values
        self.scale = None if scale is None else scale.astype(np.float32)
        self.bias = None if bias is None else bias.astype(np.float32)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        """H."""
        return int(self.values.shape[1])

    def rows(self, items: Ints | slice) -> Floats:
        """Return ``(n, H)`` float32 vectors."""
        rows = self.values[items].astype(np.float32)
        return rows if self.scale is None else rows * self.scale[items][:, None]

    def scores(self, hidden: Floats, items: Ints) -> npt.NDArray[np.float64]:
        """Return the ``(n,)`` scores of items for a hidden state ``(H,)``, summed in float64.

        The sum of an item does not depend on which others are asked for, so neither does the order of two items.
        """
        exact: npt.NDArray[np.float64] = np.einsum(
            "nh,h->n", self.rows(items).astype(np.float64), hidden.astype(np.float64)
        )
        return exact if self.bias is None else exact + self.bias[items]

    def all_scores(self, hidden: Floats) -> Floats:
        """Return ``(I,)`` scores of all items, in float32."""
        scores = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            scores[block] = self.rows(block) @ hidden
        return scores if self.bias is None else scores + self.bias

    def norms(self) -> Floats:
        """Return ``(I,)`` Euclidean lengths of the vectors."""
        blocks = [self.rows(slice(start, start + _BLOCK)) for start in range(0, len(self), _BLOCK)]
        return np.concatenate([np.linalg.norm(block, axis=1) for block in blocks])

    def bias_unit(self) -> float:
        """Return c, which makes ``bias / c`` as large as the vectors' entries; 0 without biases."""
        if self.bias is None or not np.abs(self.bias).max():
            return 0.0
        entries = self.largest_entries(0.0).max()
        return float(np.abs(self.bias).max() / (entries or 1.0))

    def vectors(self, items: Ints | slice, bias_unit: float) -> Floats:
        """Return ``(n, H)`` vectors, or with a `bias_unit` above 0 ``(n, H + 1)``, the last ``bias / bias_unit``."""
        rows = self.rows(items)
        if self.bias is None or bias_unit <= 0:
            return rows
        return np.concatenate([rows, self.bias[items][:, None] / np.float32(bias_unit)], axis=1)

    def largest_entries(self, bias_unit: float) -> Floats:
        """Return ``(I,)`` largest absolute entries of `vectors`."""
        found = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(self), _BLOCK):
            block = slice(start, start + _BLOCK)
            found[block] = np.abs(self.vectors(block, bias_unit)).max(axis=1)
        return found
