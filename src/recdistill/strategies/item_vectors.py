"""What the strategies on item vectors share: the teacher's vectors, the items of a batch, a regressor, a mean."""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import Tensor, nn

from recdistill.errors import KnowledgeError
from recdistill.item_encoders.vectors import has_text, principal_components, standardised
from recdistill.types import PAD, Batch, StudentOutput, Task

Table = Literal["input", "output"]
Reduction = Literal["dimension", "item", "sum"]
TABLES: Final = ("input", "output")
REDUCTIONS: Final = ("dimension", "item", "sum")


def teacher_vectors(
    task: Task, strategy: str, *, standardise: bool, rank: int | None
) -> tuple[Tensor, Tensor]:
    """Return the teacher's ``(I, D')`` float32 vectors in the space of the loss, and ``(I,)`` which items have one.

    Parameters
    ----------
    task
        Holds the vectors.
    strategy
        Its name, for the error.
    standardise
        Whether each dimension is brought to mean 0 and variance 1.
    rank
        D', whitened principal components to keep, or None: all dimensions as they are.

    Raises
    ------
    KnowledgeError
        There are no item vectors.
    """
    if task.item_embeddings is None:
        raise KnowledgeError(
            f"strategy {strategy!r} needs the field 'item_embeddings', which the knowledge does not hold. "
            "Make it with: recdistill teach embedding --dataset DIR --out DIR"
        )
    vectors = task.item_embeddings.float()  # (I, D)
    known = has_text(vectors)
    if standardise:
        vectors = standardised(vectors)
    return (vectors if rank is None else principal_components(vectors, rank, whiten=True)), known


def batch_items(batch: Batch, known: Tensor, most: int | None = None) -> Tensor:
    """Return ``(U,)``, the distinct items of histories and targets that have a teacher's vector, ascending.

    With `most`, at most so many of them, drawn anew each time.
    """
    items = torch.unique(torch.cat([batch.history.flatten(), batch.targets]))
    items = items[items != PAD]
    chosen: Tensor = items[known[items]]
    if most is not None and len(chosen) > most:
        drawn = torch.randperm(len(chosen), device=chosen.device)[:most]
        chosen = chosen[drawn.sort().values]
    return chosen


def student_vectors(output: StudentOutput, items: Tensor, table: Table) -> Tensor:
    """Return ``(n, d)``, the student's vectors of ``(n,)`` items in its input or output table."""
    return output.embed_items(items) if table == "input" else output.vectors(items)


def student_size(task: Task, table: Table) -> int:
    """Return the width of the student's vectors in its input or output table."""
    return task.embedding_size if table == "input" else task.hidden_size


def make_regressor(kind: Literal["linear", "mlp"], size: int, width: int, hidden: int | None) -> nn.Module:
    """Return a learned map from `size` to `width` numbers; an MLP's hidden layer is by default their mean."""
    if kind == "linear":
        return nn.Linear(size, width)
    hidden = hidden or (size + width) // 2
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, width))


def reduced(total: Tensor, items: int, width: int, reduction: Reduction) -> Tensor:
    """Return a sum over items and dimensions as it is, per item, or per item and dimension."""
    if reduction == "sum":
        return total
    total = total / max(1, items)
    return total / width if reduction == "dimension" else total
