"""Examples of LLM-CF: what a language model wrote about decisions, and which of them each row is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from recdistill.data.clock import RowClock
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.user_encoders.base import in_blocks
from recdistill.user_encoders.retrieval import ExampleIndex, Quota, history_vectors

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a language model wrote about M decisions.

    Attributes
    ----------
    row_ids
        ``(M,)`` int64, ascending: the training rows that were asked about.
    items
        ``(M,)`` int64, the item that was shown.
    labels
        ``(M,)`` bool, whether it was the row's next item.
    times
        ``(M,)`` int64, when the row happened by the dataset's `RowClock`.
    words
        ``(M, D_w)`` float32 vectors of what was written.
    text
        ``(I, D)`` float32 text vectors of the items.
    """

    row_ids: Ints
    items: Ints
    labels: npt.NDArray[np.bool_]
    times: Ints
    words: Floats
    text: Floats

    def positions(self, dataset: SequenceDataset) -> Ints:
        """Return ``(M,)`` where the rows are in a dataset.

        Raises
        ------
        DataError
            A row is not in it.
        """
        return dataset.positions_of(self.row_ids)


def retrieved(
    examples: Examples, dataset: SequenceDataset, quota: Quota, *, last_items: int, seed: int
) -> dict[str, Tensor]:
    """Return the buffers of `InContext`: the examples as an index, and the list that every row is shown.

    Raises
    ------
    KnowledgeError
        There is no example, or its time is not the dataset's.
    """
    positions, times = examples.positions(dataset), RowClock.of(dataset).times
    if not len(positions) or (times[positions] != examples.times).any():
        raise KnowledgeError(
            f"the {len(positions)} examples were asked about rows with other times than the dataset's. Allowed: at "
            "least one, made from this dataset. Make them anew: recdistill rationales llm-cf --dataset D --out T."
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = F.normalize(torch.from_numpy(np.array(examples.text, dtype=np.float32)), dim=1).to(device)

    def vectors(rows: Ints) -> Tensor:
        return history_vectors(text, torch.from_numpy(dataset.histories(rows, last_items)).to(device))

    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(positions)))
    parts = (
        vectors(positions),
        torch.from_numpy(examples.labels.copy()),
        torch.from_numpy(examples.times.copy()),
        order,
    )
    index = ExampleIndex(*(part.to(device) for part in parts))
    every = np.arange(len(dataset.row_ids))
    lists = [
        index.nearest(vectors(every[part]), quota, torch.from_numpy(times[part]).to(device))
        for part in in_blocks(len(every))
    ]
    found = {"shown": torch.cat(lists), "text": text, "vectors": index.vectors, "labels": index.labels}
    found |= {"times": index.times, "order": index.order}
    return {name: value.cpu() for name, value in found.items()}
