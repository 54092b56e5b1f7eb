"""The next item by ridge regression on all items of the history at once.

After Choi et al., "Session-aware Linear Item-Item Models for Session-based Recommendation", WWW 2021,
https://arxiv.org/abs/2103.16104 (its SLIT). With the training rows' histories as ``X (R, I)``, the k-th newest item
weighed d^k, their targets as ``Y (R, I)``, and λ as a multiple of the mean of the diagonal of XᵀX::

    A = (XᵀX + λ)^-1          B = A XᵀY          score = x B                        (1)

Transitions count each pair of items by itself. Here an item gets only what the others of the history do not explain.
Asked about a training row, the model is the one that was fitted without it, by the closed form of ridge regression
(Allen, "The relationship between variable selection and data augmentation", Technometrics 1974)::

    h = x A xᵀ                score without the row = (x B - h y) / (1 - h)         (2)
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.teachers.graph.scorer import last_items, spread

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: Beyond so many items the two ``(I, I)`` arrays take gigabytes, and their inverse minutes.
MOST_ITEMS: Final = 20_000
_ROWS = 1 << 17  # rows whose histories are held at a time: those of millions would take tens of gigabytes
_CHUNK = 1024  # rows whose leverages are formed at a time


class LinearModel:
    """Eq. 1 and 2.

    Parameters
    ----------
    dataset
        Its training rows are fitted; at most `MOST_ITEMS` items.
    items
        How many of the last items speak, ≥ 1.
    decay
        d, weight of an item relative to the one after it, in (0, 1].
    shrinkage
        λ over the mean of the diagonal of XᵀX, > 0.
    """

    def __init__(
        self, dataset: SequenceDataset, *, items: int = 50, decay: float = 0.95, shrinkage: float = 5.0
    ) -> None:
        self.dataset, self.items, self.decay = dataset, items, decay
        rows = dataset.rows("train", prefixes=True)
        together, following = self._products(rows)
        penalty = max(shrinkage * float(together.diagonal().mean()), 1e-6)
        together.diagonal().add_(penalty)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(together))
        del together
        #: ``(I, I)`` B of eq. 1.
        self.weights: Floats = (inverse @ following).numpy()
        self._leverage = np.zeros(len(dataset.row_ids), dtype=np.float32)
        self._leverage[rows] = self._leverages(rows, inverse)

    def __call__(self, history: Ints, rows: Ints | None = None) -> Tensor:
        """Return ``(B, I)`` scores after each history of ``(B, L)``.

        Parameters
        ----------
        history
            Items, oldest first.
        rows
            ``(B,)`` positions of the dataset's rows, training rows without themselves; None: histories from elsewhere.
        """
        scores = torch.from_numpy(self._histories(history) @ self.weights)
        if rows is not None:
            leverage = torch.from_numpy(self._leverage[rows])  # (B,), 0 for rows that were not fitted
            targets = torch.from_numpy(self.dataset.targets(rows))
            scores[torch.arange(len(rows)), targets] -= leverage
            scores /= (1 - leverage)[:, None]
        return scores

    def _histories(self, history: Ints) -> sparse.csr_array:
        weighed = spread(*last_items(history, self.items, self.decay), self.dataset.item_count)
        return weighed.astype(np.float32)

    def _products(self, rows: Ints) -> tuple[Tensor, Tensor]:
        """Return ``(I, I)`` XᵀX and XᵀY; the histories of some rows at a time."""
        width = self.dataset.item_count
        together, following = torch.zeros(width, width), torch.zeros(width, width)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            given = self._histories(self.dataset.histories(part, self.items))  # (n, I) sparse
            where = np.arange(len(part)), self.dataset.targets(part)
            answers = sparse.csr_array(
                (np.ones(len(part), dtype=np.float32), where), shape=(len(part), width)
            )
            together += torch.from_numpy((given.T @ given).toarray())
            following += torch.from_numpy((given.T @ answers).toarray())
        return together, following

    def _leverages(self, rows: Ints, inverse: Tensor) -> Floats:
        """Return ``(n,)`` h of eq. 2, from the items of each history alone."""
        found = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            history = self.dataset.histories(rows[part], self.items)
            items, weight = last_items(history, self.items, self.decay)  # (n, k)
            places, weighed = torch.from_numpy(items), torch.from_numpy(weight)
            near = inverse[places[:, :, None], places[:, None, :]]  # (n, k, k)
            found[part] = torch.einsum("nk,nkl,nl->n", weighed, near, weighed).numpy()
        return found
