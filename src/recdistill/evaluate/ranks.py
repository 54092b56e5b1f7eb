"""The rank of the true item, by counting; top-k lists, by selection. Nothing is ever sorted.

A rank is the number of other items whose score is at least the target's: 0 is best, and a tie counts
against the target, so that a model with constant scores gets the worst rank, not a lucky one.
Memory is one batch of scores and one byte for each of them, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, DataError
from recdistill.types import PAD

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[Any]
Scorer = Callable[..., "Scores | Tensor"]

#: Scores asked for at once, at most: 16 MiB of float32 stay in the last-level cache and below the size
#: from which the allocator returns (and faults in anew) the memory of every batch.
_SCORES_AT_ONCE = 1 << 22
_ROWS_AT_LEAST = 32
#: One word holds eight one-byte flags; up to 255 words may be added before a byte overflows.
_FLAGS_IN_WORD, _WORDS_IN_SUM = 8, 128


@dataclass(frozen=True, eq=False)
class RankPair:
    """The target's ranks among all items and among the items that are new to the user.

    Attributes
    ----------
    kept
        ``(n,)`` int64, all items compete.
    unseen
        ``(n,)`` int64, the items of the row's whole history do not compete, except the target itself.
    """

    kept: Ints
    unseen: Ints

    def of(self, *, filter_seen: bool) -> Ints:
        """Return `unseen` if `filter_seen`, else `kept`."""
        return self.unseen if filter_seen else self.kept


def target_ranks(
    scorer: Scorer, dataset: SequenceDataset, rows: Ints, *, length: int, batch_size: int = 512
) -> RankPair:
    """Rank each row's target among all I items.

    Parameters
    ----------
    scorer
        Maps ``(B, L)`` int64 histories (`PAD` on the right) to ``(B, I)`` scores, numpy or torch,
        on any device. One whose attribute ``wants_row_ids`` is True is given the ``(B,)`` row ids as well, see
        `ask`.
    dataset
        The dataset of the rows.
    rows
        ``(n,)`` positions of rows, as from ``dataset.rows("test")``.
    length
        L, how many of the last items the scorer is shown.
    batch_size
        Rows scored at once, at most; with many items fewer are taken.

    Returns
    -------
    RankPair
        0-based ranks, pessimistic on ties.

    Raises
    ------
    DataError
        A score is NaN.
    ConfigError
        The scores do not have the shape ``(B, I)``, or `length` or `batch_size` is below 1.
    """
    kept, seen_above = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    flags = _Flags(dataset.item_count)
    for places, chunk, scores in _batches(scorer, dataset, rows, length, batch_size):
        targets = dataset.targets(chunk)
        owners, items = distinct_seen(dataset, chunk)
        other = items != targets[owners]
        owners, items = owners[other], items[other]
        if isinstance(scores, np.ndarray):
            above, seen = _counts_numpy(scores, targets, owners, items, flags)
        else:
            above, seen = _counts_torch(scores, targets, owners, items)
        kept[places] = above - 1  # the target itself is at least its own score
        seen_above[places] = seen
    return RankPair(kept, kept - seen_above)


def ranks_of_new_items(ranks: RankPair, dataset: SequenceDataset, rows: Ints) -> Ints:
    """Return the ranks of a model that never names an item of the history, whatever the protocol.

    Parameters
    ----------
    ranks
        Of the same model with all items, from `target_ranks`.
    dataset, rows
        What it was asked.

    Returns
    -------
    ndarray
        ``(n,)`` int64. A target that the history has is missed: its rank is the last, ``I - 1``.
    """
    targets = dataset.targets(rows)
    owners, items = dataset.seen(rows)
    ranked = ranks.unseen.copy()
    ranked[owners[items == targets[owners]]] = dataset.item_count - 1
    return ranked


def top_items(
    scorer: Scorer,
    dataset: SequenceDataset,
    rows: Ints,
    k: int,
    *,
    length: int,
    filter_seen: bool,
    batch_size: int = 512,
) -> Ints:
    """Return each row's k best items, best first.

    Parameters
    ----------
    scorer, dataset, rows, length, batch_size
        As in `target_ranks`.
    k
        Length of the lists, ``1 .. I``.
    filter_seen
        Whether the items of the row's whole history are left out.

    Returns
    -------
    ndarray
        ``(n, k)`` int64; `PAD` where fewer than k items are left or an item's score is minus infinity.

    Raises
    ------
    DataError
        A score is NaN.
    ConfigError
        `k` is not in ``1 .. I``, or as in `target_ranks`.
    """
    import torch

    if not 1 <= k <= dataset.item_count:
        raise ConfigError(
            f"k = {k} is not in 1..{dataset.item_count}, the number of items. Choose a smaller -k."
        )
    top = np.empty((len(rows), k), np.int64)
    for places, chunk, scores in _batches(scorer, dataset, rows, length, batch_size):
        # A copy: the scorer's own array may be shared between calls and must not be written to.
        values = (
            torch.from_numpy(np.array(scores)) if isinstance(scores, np.ndarray) else scores.detach().clone()
        )
        if not values.is_floating_point():
            values = values.double()
        if filter_seen:
            owners, items = dataset.seen(chunk)
            values[
                torch.from_numpy(owners).to(values.device), torch.from_numpy(items).to(values.device)
            ] = -torch.inf
        best, index = values.topk(k, dim=1)  # (B, k)
        index = index.masked_fill(best == -torch.inf, PAD)
        top[places] = index.cpu().numpy()
    return top


def ask(scorer: Scorer, dataset: SequenceDataset, rows: Ints, length: int) -> Scores | Tensor:
    """Return a scorer's ``(n, I)`` scores of n rows.

    A plain scorer sees the histories alone. One with ``wants_row_ids = True`` is called with histories and row ids:
    it knows something of the rows that no history tells.
    """
    histories = dataset.histories(rows, length)
    if getattr(scorer, "wants_row_ids", False):
        return scorer(histories, dataset.row_ids[rows])
    return scorer(histories)


def distinct_seen(dataset: SequenceDataset, rows: Ints) -> tuple[Ints, Ints]:
    """Return the different items of n rows' whole histories as pairs ``(m,)``: row 0..n-1, item."""
    owners, items = dataset.seen(rows)
    keys = np.unique(owners * dataset.item_count + items)
    return keys // dataset.item_count, keys % dataset.item_count


class _Flags:
    """A reused ``(B, I)`` buffer of one byte a score, padded with zeros to whole sums of words."""

    def __init__(self, item_count: int) -> None:
        self.item_count = item_count
        block = _FLAGS_IN_WORD * _WORDS_IN_SUM
        self.width = -(-item_count // block) * block
        self.bytes: Bools = np.zeros((0, self.width), np.bool_)

    def rows(self, count: int) -> Bools:
        """Return ``(count, width)``; the columns from I on are always False."""
        if len(self.bytes) < count:
            self.bytes = np.zeros((count, self.width), np.bool_)
        return self.bytes[:count]


def _counts_numpy(
    scores: Scores, targets: Ints, owners: Ints, items: Ints, flags: _Flags
) -> tuple[Ints, Ints]:
    """Count, for each row, the items (and the given seen items) that score at least the target.

    numpy compares seven times as fast as torch here (it uses one vector compare a score), and adding the
    one-byte flags eight at a time is twice as fast as widening each; see benchmarks of this module.
    """
    limits = scores[np.arange(len(scores)), targets]  # (B,)
    above = flags.rows(len(scores))
    np.greater_equal(scores, limits[:, None], out=above[:, : flags.item_count])
    words = above.view(np.uint64).reshape(len(scores), -1, _WORDS_IN_SUM)
    partial = words.sum(2, dtype=np.uint64).view(np.uint8)  # (B, 8 * sums), each at most 128
    seen = np.bincount(owners[above[owners, items]], minlength=len(scores))
    return partial.sum(1, dtype=np.int64), seen.astype(np.int64)


def _counts_torch(scores: Tensor, targets: Ints, owners: Ints, items: Ints) -> tuple[Ints, Ints]:
    """Do the same where the scores are on another device: only two numbers a row leave it."""
    import torch

    device = scores.device
    limits = scores.gather(1, torch.from_numpy(targets).to(device)[:, None])  # (B, 1)
    above = scores >= limits
    hits = above[torch.from_numpy(owners).to(device), torch.from_numpy(items).to(device)].cpu().numpy()
    seen = np.bincount(owners[hits], minlength=len(scores)).astype(np.int64)
    return above.sum(1).cpu().numpy(), seen


def _batches(
    scorer: Scorer, dataset: SequenceDataset, rows: Ints, length: int, batch_size: int
) -> Iterator[tuple[Ints, Ints, Scores | Tensor]]:
    """Yield the places of a batch in `rows`, its rows and their checked scores; those on the CPU as numpy, uncopied.

    Rows whose histories are about as long come together: a scorer can leave out the columns that are all `PAD`.
    """
    if length < 1 or batch_size < 1:
        raise ConfigError(
            f"length = {length} and batch_size = {batch_size} must be at least 1. Set both above 0."
        )
    size = min(batch_size, max(_ROWS_AT_LEAST, _SCORES_AT_ONCE // max(dataset.item_count, 1)))
    order = np.argsort(np.minimum(dataset.history_lengths(rows), length), kind="stable")
    for start in range(0, len(rows), size):
        places = order[start : start + size]
        chunk = rows[places]
        scores = _on_host(ask(scorer, dataset, chunk, length))
        if tuple(scores.shape) != (len(chunk), dataset.item_count):
            raise ConfigError(
                f"the scorer returned scores of shape {tuple(scores.shape)}; "
                f"({len(chunk)}, {dataset.item_count}) = (rows, items) is needed. "
                "Was the model made for another dataset? See recdistill data stats."
            )
        _refuse_nan(scores, dataset.row_ids[chunk])
        yield places, chunk, scores


def _on_host(scores: Scores | Tensor) -> Scores | Tensor:
    """Return numpy scores for anything that lies in this machine's main memory."""
    if isinstance(scores, np.ndarray):
        return scores
    scores = scores.detach()
    if scores.device.type != "cpu":
        return scores
    if scores.element_size() == 2:  # numpy has no bfloat16
        scores = scores.float()
    host: Scores = scores.numpy()
    return host


def _refuse_nan(scores: Scores | Tensor, row_ids: Ints) -> None:
    """Raise on a NaN. The maximum passes a NaN on, so that one cheap pass tells whether to look closer."""
    largest = scores.max()
    if bool(largest == largest):
        return
    values = scores if isinstance(scores, np.ndarray) else scores.cpu().numpy()
    first = int(np.isnan(values).any(1).argmax())
    raise DataError(
        f"the scores of row {row_ids[first]} contain NaN; every score must be a number, infinite or not. "
        "Look at the loss in metrics.jsonl: train a diverged run anew with a smaller learning rate."
    )
