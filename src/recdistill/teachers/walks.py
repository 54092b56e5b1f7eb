"""Walks: sequences that a teacher writes itself, item by item, with its answer before each step.

Training on what a teacher generates is sequence-level distillation (Kim and Rush, "Sequence-Level Knowledge
Distillation", EMNLP 2016, https://arxiv.org/abs/1606.07947). That a recommender can be copied from sequences which are
sampled from its own lists, without any data, was shown by Yue et al., "Black-Box Attacks on Sequential Recommenders
via Data-Free Model Extraction", RecSys 2021, https://arxiv.org/abs/2109.01165. Here they stand beside the data. With
the teacher's scores f over the items::

    h_1 = a warm item, each equally often
    h_{t+1} ~ softmax(f(h_1 .. h_t) / τ), among its m best warm items that are not in h_1 .. h_t     (1)

Warm items are those of training: what nobody has bought yet keeps the place that its text gives it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge import Knowledge, Walks
from recdistill.teachers.base import Progress, Scorer, answers_of, check_range

Ints = npt.NDArray[np.int64]
_BATCH = 512


def take_walks(
    scorer: Scorer,
    dataset: SequenceDataset,
    *,
    count: int,
    steps: int = 5,
    breadth: int = 20,
    temperature: float = 1.0,
    top_k: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Walks:
    """Let a teacher write sequences, eq. 1, and keep what it says before each step.

    Parameters
    ----------
    scorer
        ``history (B, L) -> scores (B, I)``.
    dataset
        Whose items; its training rows say which of them are warm.
    count
        W, at least 1; they begin with every warm item in turn, in random order.
    steps
        T, at least 1 and less than the number of warm items.
    breadth
        m, at least 1.
    temperature
        τ > 0, of the draw and of the distances that are kept.
    top_k
        Items kept of each answer.
    seed
        Of starts and draws.
    progress
        Called with the answers of each finished chunk.

    Raises
    ------
    ConfigError
        A number is out of its range.
    """
    top_k = check_range(dataset, top_k, temperature)
    warm = np.flatnonzero(~dataset.cold_items)
    if count < 1 or breadth < 1 or not 1 <= steps < len(warm):
        raise ConfigError(
            f"{count} walks of {steps} steps among {breadth} items. Allowed: at least 1 walk, 1 to {len(warm) - 1} "
            "steps (fewer than items of training), at least 1 item to choose from. See recdistill teach graph --help"
        )
    starts = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    rounds = [starts.permutation(warm) for _ in range(-(-count // len(warm)))]
    items = np.empty((count, steps + 1), dtype=np.int32)
    items[:, 0] = np.concatenate(rounds)[:count]
    ranking = np.empty((count, steps, top_k), dtype=np.int32)
    distance = np.empty((count, steps, top_k), dtype=np.float32)
    target_distance = np.empty((count, steps), dtype=np.float32)
    ranks = np.empty((2, count, steps), dtype=np.int32)
    cold = torch.from_numpy(dataset.cold_items)
    for start in range(0, count, _BATCH):
        part = slice(start, min(start + _BATCH, count))
        for step in range(steps):
            history = items[part, : step + 1].astype(np.int64)  # (B, t)
            with torch.no_grad():
                logits = scorer(history).float() / temperature  # (B, I)
            open_to_all = logits.masked_fill(cold, -torch.inf).scatter(
                1, torch.from_numpy(history), -torch.inf
            )
            best, among = open_to_all.topk(min(breadth, logits.shape[1]), dim=1)
            drawn = torch.multinomial(best.softmax(1), 1, generator=generator)
            following = among.gather(1, drawn)  # (B, 1)
            items[part, step + 1] = following[:, 0].numpy()
            seen = np.repeat(np.arange(len(history)), step + 1), history.ravel()
            said = answers_of(logits, following[:, 0], seen, top_k)
            ranking[part, step], distance[part, step], target_distance[part, step], ranks[:, part, step] = (
                said
            )
            if progress is not None:
                progress(len(history))
    answers = Knowledge(
        row_ids=np.arange(count * steps),
        item_count=dataset.item_count,
        ranking=ranking.reshape(count * steps, top_k),
        ranking_distance=distance.reshape(count * steps, top_k),
        target_distance=target_distance.ravel(),
        target_rank=ranks[0].ravel(),
        target_rank_unseen=ranks[1].ravel(),
    )
    return Walks(items, answers, {"breadth": breadth, "temperature": temperature, "seed": seed})


def default_count(dataset: SequenceDataset, steps: int) -> int:
    """Return how many walks are written where nobody says: one from each warm item, at least 1.

    There are no more steps than training rows, or a catalogue of millions would make them dearer than all else.
    """
    rows = len(dataset.rows("train", prefixes=True))
    return max(1, min(int((~dataset.cold_items).sum()), rows // steps))
