"""What a teacher is, and the one walk over the rows that turns scores into knowledge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.store import provenance
from recdistill.types import PAD, SPLITS, Split

Ints = npt.NDArray[np.int64]
#: Embeddings, in single or half precision.
Vectors = npt.NDArray[Any]

#: ``(rows (B,), history (B, L)) -> scores (B, I)``: a scorer that also learns which rows it is asked about, so
#: that a teacher can leave out of its memory what a training row would find there, its own answer.
RowScorer = Callable[[Ints, Ints], Tensor]

#: ``history (B, L) -> scores (B, I)``, as evaluation and serving call it.
Scorer = Callable[[Ints], Tensor]

#: Called with the number of rows that were just finished.
Progress = Callable[[int], None]


class Teacher(Protocol):
    """Dataset to knowledge. A teacher never sees a student.

    Attributes
    ----------
    name
        As it stands in tables and manifests.
    """

    name: str

    def teach(
        self, dataset: SequenceDataset, rows: Ints, *, top_k: int = 50, progress: Progress | None = None
    ) -> Knowledge:
        """Answer the rows (positions, ascending) and keep the best `top_k` items of each."""
        ...


def rows_to_teach(
    dataset: SequenceDataset,
    splits: Iterable[Split] = SPLITS,
    *,
    prefixes: bool = True,
    select: npt.ArrayLike | None = None,
) -> Ints:
    """Return the positions of the rows a teacher answers, ascending.

    Parameters
    ----------
    dataset
        The rows.
    splits
        Training rows teach; valid and test rows let the teacher itself be judged.
    prefixes
        Whether the ``prefix`` rows, which only all-position students use, go with the training rows.
    select
        Ids of the rows to ask about among the training rows and their prefixes, or None: all. Rows of other
        splits are asked about whatever is selected.

    Raises
    ------
    ConfigError
        No row is left.
    DataError
        A selected id does not exist.
    """
    splits = list(dict.fromkeys(splits))
    parts = [
        dataset.rows(split, prefixes=split == "train" and (prefixes or select is not None))
        for split in splits
    ]
    if select is not None and "train" in splits:
        at = splits.index("train")
        parts[at] = np.intersect1d(parts[at], dataset.positions_of(select))
    rows = np.sort(np.concatenate([*parts, np.empty(0, dtype=np.int64)]))
    if not len(rows):
        raise ConfigError(
            f"dataset {dataset.name!r} has no row in {list(splits)}. Allowed: {', '.join(SPLITS)}, "
            "non-empty. See the counts with: recdistill data stats"
        )
    return rows


def knowledge_from_scorer(
    scorer: RowScorer,
    dataset: SequenceDataset,
    rows: Ints,
    *,
    length: int,
    top_k: int = 50,
    temperature: float = 1.0,
    batch_size: int = 512,
    progress: Progress | None = None,
    query_embeddings: Vectors | None = None,
    item_embeddings: Vectors | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Knowledge:
    """Walk the rows in chunks and keep rankings, distances and the true item's place.

    The distance is the negative log-probability ``-log softmax(score / temperature)`` over the whole
    catalogue: non-negative, comparable between rows, smaller is better. No ``(N, I)`` array is ever held.

    Parameters
    ----------
    scorer
        Gives ``(B, I)`` finite scores, larger is better.
    dataset
        Where the rows come from.
    rows
        ``(N,)`` positions, ascending.
    length
        How many of the last items of a history the scorer gets.
    top_k
        K, items kept of each row.
    temperature
        τ > 0 of the softmax.
    batch_size
        Rows at a time; memory is ``batch_size * I`` floats a few times over.
    progress
        Called with the rows of each finished chunk.
    query_embeddings
        ``(N, D)``, stored as they are.
    item_embeddings
        ``(I, D)``, stored as they are.
    manifest
        JSON-able facts about the teacher; the dataset's name and fingerprints are added.

    Raises
    ------
    ConfigError
        `top_k` or `temperature` is out of range.
    """
    top_k = check_range(dataset, top_k, temperature)
    ranking = np.full((len(rows), top_k), PAD, dtype=np.int32)
    distance = np.empty((len(rows), top_k), dtype=np.float32)
    target_distance = np.empty(len(rows), dtype=np.float32)
    ranks = np.empty((2, len(rows)), dtype=np.int32)
    for part, scores in walk(scorer, dataset, rows, length=length, batch_size=batch_size):
        targets = torch.from_numpy(dataset.targets(rows[part]))
        said = answers_of(scores / temperature, targets, dataset.seen(rows[part]), top_k)
        ranking[part], distance[part], target_distance[part], ranks[:, part] = said
        if progress is not None:
            progress(len(targets))
    return Knowledge(
        row_ids=dataset.row_ids[rows],
        item_count=dataset.item_count,
        ranking=ranking,
        ranking_distance=distance,
        target_distance=target_distance,
        target_rank=ranks[0],
        target_rank_unseen=ranks[1],
        query_embeddings=query_embeddings,
        item_embeddings=item_embeddings,
        manifest={**(manifest or {}), **provenance(dataset), "top_k": top_k, "temperature": temperature},
    )


def answers_of(
    logits: Tensor, targets: Tensor, seen: tuple[Ints, Ints], top_k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return what knowledge keeps of scores: lists, their distances, the targets' distances and ranks.

    Parameters
    ----------
    logits
        ``(B, I)`` float32 scores, divided by the temperature.
    targets
        ``(B,)`` true items.
    seen
        Pairs ``(k,)`` of row index and item, as `SequenceDataset.seen` gives them.
    top_k
        K, 1 to I.

    Returns
    -------
    tuple
        ``(B, K)`` items, best first; ``(B, K)`` and ``(B,)`` negative log-probabilities, at least 0; ``(2, B)``
        ranks as of `target_ranks_of`.
    """
    log_total = logits.logsumexp(1, keepdim=True)  # (B, 1)
    best, items = ordered_topk(logits, top_k)
    at_target = logits.gather(1, targets[:, None])  # (B, 1)
    return (
        items.numpy(),
        (log_total - best).clamp_min_(0).numpy(),
        (log_total - at_target).clamp_min_(0).squeeze(1).numpy(),
        target_ranks_of(logits, targets, seen),
    )


def check_range(dataset: SequenceDataset, top_k: int, temperature: float) -> int:
    """Return `top_k` cut to the catalogue's size.

    Raises
    ------
    ConfigError
        `top_k` < 1 or `temperature` <= 0.
    """
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}. Allowed: 1 to the number of items. Pass --top-k 50.")
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}. Allowed: above 0. Pass --temperature 0.06.")
    return min(top_k, dataset.item_count)


def walk(
    scorer: RowScorer, dataset: SequenceDataset, rows: Ints, *, length: int, batch_size: int = 512
) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(where in rows, scores (B, I) float32)`` chunk by chunk."""
    for start in range(0, len(rows), batch_size):
        part = slice(start, min(start + batch_size, len(rows)))
        with torch.no_grad():
            scores = scorer(rows[part], dataset.histories(rows[part], length))
        yield part, scores.float()


def plain(scorer: Scorer) -> RowScorer:
    """Make a row scorer of a scorer that does not care which rows it is asked about."""
    return lambda rows, history: scorer(history)


def ordered_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return ``(B, k)`` the best scores and their items; equal scores in the list go by ascending item."""
    best, items = scores.topk(k, dim=1)  # (B, k)
    by_item = items.argsort(1)
    best, items = best.gather(1, by_item), items.gather(1, by_item)
    order = best.argsort(dim=1, descending=True, stable=True)
    return best.gather(1, order), items.gather(1, order)


def target_ranks_of(scores: Tensor, targets: Tensor, seen: tuple[Ints, Ints]) -> npt.NDArray[np.int32]:
    """Return ``(2, B)`` the targets' pessimistic ranks: among all items, and without those already seen.

    Parameters
    ----------
    scores
        ``(B, I)``.
    targets
        ``(B,)``.
    seen
        Pairs ``(k,)`` of row index and item, as `SequenceDataset.seen` gives them.
    """
    at_target = scores.gather(1, targets[:, None])  # (B, 1)
    kept = torch.from_numpy(np.count_nonzero((scores >= at_target).numpy(), axis=1)) - 1  # (B,)
    pairs = np.unique(seen[0] * scores.shape[1] + seen[1])
    owners, items = (torch.from_numpy(a) for a in np.divmod(pairs, scores.shape[1]))
    above = (scores[owners, items] >= at_target[owners, 0]) & (items != targets[owners])
    dropped = torch.zeros_like(kept).index_add_(0, owners, above.long())
    return torch.stack([kept, kept - dropped]).numpy().astype(np.int32)


def ranks_of_rows(
    scorer: RowScorer, dataset: SequenceDataset, rows: Ints, *, length: int, batch_size: int = 512
) -> npt.NDArray[np.int32]:
    """Return ``(2, N)`` the targets' ranks, seen items kept and dropped, without storing rankings."""
    ranks = np.empty((2, len(rows)), dtype=np.int32)
    for part, scores in walk(scorer, dataset, rows, length=length, batch_size=batch_size):
        targets = torch.from_numpy(dataset.targets(rows[part]))
        ranks[:, part] = target_ranks_of(scores, targets, dataset.seen(rows[part]))
    return ranks


def ndcg(ranks: npt.NDArray[np.integer[Any]], k: int = 20) -> float:
    """Return NDCG@k of 0-based ranks with one relevant item each: mean of ``[rank < k] / log2(rank + 2)``."""
    return float(np.where(ranks < k, 1 / np.log2(ranks + 2.0), 0.0).mean()) if len(ranks) else 0.0


def some_rows(rows: Ints, limit: int) -> Ints:
    """Return at most `limit` of the rows, evenly spread: what hyper-parameters are tuned on."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def best_temperature(
    scorer: RowScorer, dataset: SequenceDataset, rows: Ints, *, length: int, grid: Iterable[float]
) -> float:
    """Return the τ of the grid under which the rows' true items are likeliest (mean log-probability).

    Without rows it is 0.06, the value of the free baselines' first distillation.
    """
    if not len(rows):
        return 0.06
    candidates = list(grid)
    loss = np.zeros(len(candidates))
    for part, scores in walk(scorer, dataset, rows, length=length):
        chosen = scores.gather(1, torch.from_numpy(dataset.targets(rows[part]))[:, None]).squeeze(1)
        for index, tau in enumerate(candidates):
            loss[index] += float(((scores / tau).logsumexp(1) - chosen / tau).sum())
    return candidates[int(loss.argmin())]
