"""Trained students as a teacher: one, or several whose scores are added.

EnsRec, Collins et al., 2025, https://arxiv.org/abs/2512.17820, adds the scores of a student of ids and a student of
text that were trained apart. A sum of scores is again an inner product: of the hidden states side by side, h, and
the item vectors side by side, e. With a weight w_r for each student r, and b its biases:

(1)  score of i = sum_r w_r (h_r . e_ri + b_ri) = [h_1, 1, h_2, 1, ...] . [w_1 e_1i, w_1 b_1i, w_2 e_2i, ...]

So the knowledge holds the whole answer in two small tables, and a single student takes over what all know by
learning from it (strategy ``soft_labels``, by default from the list, with ``teacher=dot`` from all items).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset, gather_windows
from recdistill.errors import ConfigError
from recdistill.export.recommender import Recommender
from recdistill.knowledge import Knowledge
from recdistill.runs import require_fingerprint
from recdistill.teachers.base import Scorer, knowledge_from_scorer
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]


def knowledge_of(
    students: Sequence[Recommender],
    dataset: SequenceDataset,
    rows: Ints,
    *,
    weights: Sequence[float] | None = None,
    temperature: float = 1.0,
    top_k: int = 50,
    batch_size: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Knowledge:
    """Let students answer rows, eq. (1).

    Their training rows they have seen before: there they are surer than on new ones.

    Parameters
    ----------
    students
        One or more, trained on `dataset`.
    dataset
        Where the rows come from.
    rows
        ``(N,)`` positions, ascending.
    weights
        w, one a student, above 0; None: 1 each.
    temperature
        τ > 0 of the probabilities.
    top_k
        Items kept of each row's ranking.
    batch_size
        Rows at a time.
    progress
        Called with the rows of each finished chunk.

    Raises
    ------
    ConfigError
        There is no student, or not one weight above 0 for each.
        Or one has learned from valid or test rows, on which its answers would be judged.
    FingerprintError
        A student was trained on another dataset.
    """
    weights = [1.0] * len(students) if weights is None else list(weights)
    if not students or len(weights) != len(students) or not all(weight > 0 for weight in weights):
        raise ConfigError(
            f"{len(students)} students and the weights {weights}. Allowed: at least one student, and one weight "
            "above 0 for each. Name them with: recdistill teach student RUN [RUN ...] --weights 1,0.5"
        )
    for student in students:
        require_fingerprint(student.dataset_fingerprint, dataset.fingerprint, "a student")
        if student.learned:
            raise ConfigError(
                f"a student has learned from the {' and '.join(student.learned)} rows (recdistill refit), where a "
                "teacher is judged. Allowed: the run that it was made from."
            )
    table = torch.cat([_table(one, weight) for one, weight in zip(students, weights, strict=True)], dim=1)
    queries = np.empty((len(rows), table.shape[1]), dtype=np.float32)

    def scorer(chunk: Ints, _: Ints) -> Tensor:
        hidden = torch.cat([_hidden(student, dataset, chunk) for student in students], dim=1)  # (B, H)
        queries[np.searchsorted(rows, chunk)] = hidden.numpy()
        return hidden @ table.T

    return knowledge_from_scorer(
        scorer,
        dataset,
        rows,
        length=1,
        top_k=top_k,
        temperature=temperature,
        batch_size=batch_size,
        progress=progress,
        query_embeddings=queries,
        item_embeddings=table.numpy(),
        manifest={
            "teacher": "student" if len(students) == 1 else "students",
            "metric": "dot",
            "distance": "negative_log_probability",
            "weights": weights,
            "students": [str(student.spec["student"]) for student in students],
            "trained_on_these_rows": True,
        },
    )


def scorer_of(students: Sequence[Recommender], weights: Sequence[float] | None = None) -> Scorer:
    """Return what scores any history by eq. (1): ``(B, L)`` items, oldest first, to ``(B, I)`` scores.

    A student reads the last items that it has room for.
    """
    weights = [1.0] * len(students) if weights is None else weights

    def scorer(history: Ints) -> Tensor:
        counts = (history != PAD).sum(1)
        scores: Tensor | float = 0.0
        for student, weight in zip(students, weights, strict=True):
            kept = np.minimum(counts, student.length)
            starts = np.arange(len(history)) * history.shape[1] + counts - kept
            read = gather_windows(history.ravel(), starts, kept, min(student.length, history.shape[1]))
            scores = scores + weight * student.scorer()(read).float().cpu()
        return torch.as_tensor(scores)

    return scorer


def _table(student: Recommender, weight: float) -> Tensor:
    """Return ``(I, H)`` weighted item vectors; with biases, they are one more column."""
    model = student.model
    vectors = model.output_encoder.table().detach().float().cpu()
    if model.item_bias is not None:
        vectors = torch.cat([vectors, model.item_bias.detach().float().cpu().unsqueeze(1)], dim=1)
    return weight * vectors


@torch.no_grad()
def _hidden(student: Recommender, dataset: SequenceDataset, rows: Ints) -> Tensor:
    """Return ``(B, H)`` hidden states; with biases, a column of ones beside them."""
    history = torch.from_numpy(dataset.histories(rows, student.length))
    history = history.to(next(student.model.parameters()).device)
    row_ids = torch.from_numpy(dataset.row_ids[rows]).to(history.device)
    hidden = student.model.encode(history, (history >= 0).sum(1), row_ids=row_ids).float().cpu()
    if student.model.item_bias is None:
        return hidden
    return torch.cat([hidden, hidden.new_ones((len(hidden), 1))], dim=1)
