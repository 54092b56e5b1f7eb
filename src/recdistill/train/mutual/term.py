"""What either model learns from its partner: the divergence from the partner's distribution (LLMD4Rec).

With y the scores of the model that learns, p those of its partner as they were before the phase, T a temperature and
w the row's weight of `weights`::

    L = T^2 w KL( softmax(p / T) || softmax(y / T) )                                          # (1)

The partner's softmax(p / T) comes as M log-probabilities and the mass they leave of 1, so (1) is taken over M + 1
buckets, the student's side summed over the same ones. Joining items never raises a divergence: this is at most (1) over
all items, at any T, and is it at M = I. ``exact`` takes all items, from the partner's row and item vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge import Knowledge
from recdistill.strategies.base import ListStrategy
from recdistill.strategies.soft_labels import SoftLabels
from recdistill.train.loop import to_device
from recdistill.train.mutual.weights import RankWeights
from recdistill.types import Batch, StudentOutput, Task

Ints = npt.NDArray[np.int64]


class Partner(ListStrategy):
    """Eq. (1), for a student as a strategy, for a language model through `term_of`.

    Parameters
    ----------
    temperature
        T > 0, that of the partner's log-probabilities.
    k
        M.
    exact
        Whether all items are compared instead of M and the rest.
    weights
        w, or None: 1 each.
    """

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        k: int = 200,
        exact: bool = False,
        weights: RankWeights | None = None,
    ) -> None:
        super().__init__()
        # The temperature is already in what the partner answered, and is brought into the scores below.
        self.soft = SoftLabels(teacher="dot" if exact else "log_probabilities", temperature=1.0, k=k)
        self.temperature, self.weights, self.requires = temperature, weights, self.soft.requires
        if weights is not None and weights.own is None:
            self.soft.count_ranks()

    def prepare(self, task: Task) -> None:
        """Take the partner's item vectors, where all items are compared."""
        self.soft.prepare(task)

    def on_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins."""
        self.soft.on_epoch(epoch)

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        bias = None if output.item_bias is None else output.item_bias / self.temperature
        cooled = StudentOutput(
            output.hidden / self.temperature, output.item_table, bias, output.embed_items, output.cold
        )  # scores / T
        values = self.temperature**2 * self.soft.per_row(cooled, batch)
        return values if self.weights is None else values * self.weights(cooled, batch)


def term_of(
    partner: Partner, factor: float, knowledge: Knowledge, dataset: SequenceDataset
) -> Callable[[Ints, Tensor, Tensor], Tensor]:
    """Return eq. (1), times a factor, as a language model with a head over items takes it.

    Parameters
    ----------
    partner
        The term; it is prepared here.
    factor
        lambda_1.
    knowledge
        The student's answers to the rows.
    dataset
        Where the rows come from.

    Returns
    -------
    Callable
        Positions ``(S,)``, queries ``(S, d + 1)`` whose last entry is 1, and item vectors ``(I, d + 1)`` whose last
        entry is the bias, to a scalar.
    """
    vectors = knowledge.item_embeddings
    table = None if vectors is None else torch.from_numpy(np.array(vectors, dtype=np.float32))
    task = Task(dataset.item_count, 0, 0, torch.from_numpy(dataset.popularity.astype(np.float32)), table)

    def value(rows: Ints, query: Tensor, items: Tensor) -> Tensor:
        partner.to(query.device)
        ids = torch.from_numpy(dataset.row_ids[rows])
        bare = torch.zeros((len(rows), 0), dtype=torch.int64)  # the divergence reads no history
        targets = torch.from_numpy(dataset.targets(rows))
        batch = Batch(bare, bare.sum(1), None, targets, ids, knowledge=knowledge.rows_for(ids))
        output = StudentOutput(query[:, :-1], items[:, :-1], items[:, -1], lambda wanted: items[wanted])
        found: Tensor = partner(output, to_device(batch, query.device))
        return factor * found

    partner.prepare(task)
    return value
