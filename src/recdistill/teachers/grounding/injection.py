"""Statistical injection: a generated text's distances, corrected by what the log says about the items.

BIGRec (Bao et al., arXiv 2308.08434), its two scripts for popularity and for collaborative information:

    d̂_si = (d_si - min_i d_si) / (max_i d_si - min_i d_si),   score_si = (d̂_si + ε) (1 + s_si)^(-γ),   smallest first.

| symbol | name         | default | where it comes from |
|---|---|---|---|
| s_i    | `popularity` | counts of training targets, min-max over items | the paper |
| s_si   | `collaborative` | a model's scores for the row, min-max over items | the paper |
| γ      | `gamma`      | best NDCG@20 on validation rows | the paper; there one for each metric and k |
| ε      | `zero_guard` | 0 | ours: with 0 the nearest item (d̂ = 0) stays first whatever γ is |

Knowledge with collaborative scores holds what a student of that kind knows: it is no longer the language model alone.
The manifest says so: ``none``, ``popularity``, or ``collaborative:NAME``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.teachers.base import Progress, RowScorer, ndcg, target_ranks_of
from recdistill.teachers.grounding.beams import put_first
from recdistill.teachers.grounding.grounder import MARGIN, Chunk, Grounder, in_order, is_seen, seen_in
from recdistill.teachers.grounding.result import Grounding, Ranked, grounding_of

Ints = npt.NDArray[np.int64]

#: ``rows (B,) -> s, (B, I) or (1, I)``, in 0..1.
Support = Callable[[Ints], Tensor]

#: What is tried for γ: fine below 1, where popularity has its best values, and coarse above.
GAMMAS: Final[tuple[float, ...]] = (
    *(0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 35.0, 60.0, 99.0),
)


@dataclass(frozen=True, eq=False)
class Injection:
    """What corrects the distances, and how much.

    Attributes
    ----------
    kind
        ``popularity`` or ``collaborative:NAME``, for the manifest.
    support
        Gives s.
    gamma
        γ >= 0; 0 changes nothing.
    zero_guard
        ε >= 0.

    Raises
    ------
    ConfigError
        γ or ε is negative.
    """

    kind: str
    support: Support
    gamma: float = 0.0
    zero_guard: float = 0.0

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and self.zero_guard >= 0):
            raise ConfigError(
                f"injection with gamma={self.gamma} and zero_guard={self.zero_guard} is not possible. Allowed: both "
                "from 0. Leave --gamma out to choose it on validation rows."
            )

    @property
    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"kind": self.kind, "gamma": self.gamma, "zero_guard": self.zero_guard}

    def score(self, distance: Tensor, support: Tensor) -> Tensor:
        """Return ``(B, I)`` corrected distances, smaller is better; infinite ones stay infinite.

        Parameters
        ----------
        distance
            ``(B, I)``, infinite for items that are never listed.
        support
            ``(B, I)`` or ``(1, I)``.
        """
        return (scaled(distance) + self.zero_guard) * (1 + support).pow(-self.gamma)


def popularity(dataset: SequenceDataset) -> Injection:
    """Return an injection of how often items are targets of training rows; γ is still to be chosen."""
    counts = torch.from_numpy(dataset.popularity.astype(np.float32))[None]  # (1, I)
    support = min_max(counts)
    return Injection("popularity", lambda rows: support)


def collaborative(scorer: RowScorer, dataset: SequenceDataset, length: int, name: str) -> Injection:
    """Return an injection of a sequential model's scores for the same rows; γ is still to be chosen.

    Parameters
    ----------
    scorer
        ``(rows, histories) -> (B, I)``, larger is better.
    dataset
        Where the rows' histories come from.
    length
        How much of a history the scorer reads.
    name
        Which model it is, with its hash: it goes into the manifest.
    """

    def support(rows: Ints) -> Tensor:
        with torch.no_grad():
            return min_max(scorer(rows, dataset.histories(rows, length)).float().cpu())

    return Injection(f"collaborative:{name}", support)


def min_max(values: Tensor) -> Tensor:
    """Bring each row of ``(B, I)`` to 0..1; a row of equal values becomes 0."""
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    return (values - low) / torch.where(high > low, high - low, 1.0)


def scaled(distance: Tensor) -> Tensor:
    """Return d̂ ``(B, I)``: finite distances brought to 0..1 over each row, infinite ones kept."""
    listed = distance.isfinite()
    low = distance.amin(1, keepdim=True)
    high = distance.masked_fill(~listed, -torch.inf).amax(1, keepdim=True)
    return (distance - low) / torch.where(high > low, high - low, 1.0)


def choose_gamma(
    injection: Injection,
    grounder: Grounder,
    queries: npt.NDArray[Any],
    rows: Ints,
    dataset: SequenceDataset,
    *,
    gammas: Iterable[float] = GAMMAS,
    k: int = 20,
) -> tuple[Injection, dict[float, float]]:
    """Choose γ for NDCG@k on rows that nothing is reported on: validation rows. Equal ones: the smallest.

    Parameters
    ----------
    injection
        Its own γ is not looked at.
    grounder
        Holds the item vectors.
    queries
        ``(n, D)`` vectors of the rows' generated texts.
    rows
        ``(n,)`` positions of validation rows.
    dataset
        Their targets.
    gammas
        What is tried.
    k
        Of the NDCG.

    Returns
    -------
    tuple
        The injection with the best γ, and NDCG@k by γ (in the order tried, smallest first).
    """
    tried = sorted(set(gammas))
    ranks: list[list[npt.NDArray[np.int64]]] = [[] for _ in tried]
    for where, distance in _distances(grounder, queries):
        base = (scaled(distance) + injection.zero_guard).log_()  # (B, I); a distance of 0 becomes -inf
        support = injection.support(rows[where]).log1p()
        target = torch.from_numpy(dataset.targets(rows[where]))[:, None]
        for index, gamma in enumerate(tried):
            value = torch.sub(base, support, alpha=gamma)
            ahead = np.count_nonzero((value <= value.gather(1, target)).numpy(), axis=1)
            ranks[index].append(ahead - 1)
    found = {gamma: ndcg(np.concatenate(parts), k) for gamma, parts in zip(tried, ranks, strict=True)}
    return replace(injection, gamma=max(found, key=lambda gamma: (found[gamma], -gamma))), found


def ground_injected(
    injection: Injection,
    grounder: Grounder,
    queries: npt.NDArray[Any],
    rows: Ints,
    dataset: SequenceDataset,
    *,
    top_k: int = 50,
    beams: tuple[Ints, Ints] | None = None,
    progress: Progress | None = None,
) -> Grounding:
    """Rank by corrected distances; the result's distances are the corrected ones.

    Parameters
    ----------
    injection
        With its γ.
    grounder
        Holds the item vectors.
    queries
        ``(n, D)``.
    rows
        ``(n,)`` positions.
    dataset
        Their targets and histories.
    top_k, beams, progress
        As in `Grounder.ground`.
    """
    top_k = grounder.check(queries, top_k)
    seen, parts = dataset.seen(rows), []
    for where, distance in _distances(grounder, queries):
        score = injection.score(distance, injection.support(rows[where]))  # (B, I)
        target = torch.from_numpy(dataset.targets(rows[where]))
        pairs = seen_in(seen, where, score.device)
        ranks = target_ranks_of(-score, target, (pairs[0].numpy(), pairs[1].numpy()))
        value, items = score.topk(min(top_k + MARGIN, score.shape[1]), dim=1, largest=False)
        value, items = in_order(value, items, top_k)
        items = items.masked_fill(value.isinf(), -1)
        ranked = Ranked(items, value, score.gather(1, target[:, None])[:, 0], torch.from_numpy(ranks).long())
        if beams is not None:
            named, beam = (torch.from_numpy(a[where]) for a in beams)
            there = score.gather(1, named.clamp(min=0))
            ranked = put_first(ranked, named, beam, there, target, is_seen(named, pairs, score.shape[1]))
        parts.append(grounding_of(ranked))
        if progress is not None:
            progress(len(target))
    return Grounding.joined(parts)


def _distances(grounder: Grounder, queries: npt.NDArray[Any]) -> Iterator[tuple[slice, Tensor]]:
    """Yield ``(where, (B, I))`` all distances of each chunk, on the CPU; items with one vector tie exactly."""
    same = _first_alike(grounder.table).to(grounder.device)  # (I,)
    for chunk in grounder.chunks(queries):
        yield chunk.where, _all(grounder, chunk, same).cpu()


def _all(grounder: Grounder, chunk: Chunk, same: Tensor) -> Tensor:
    squared = chunk.product.add(chunk.half[:, None]).clamp_(min=0).mul_(2)
    euclidean = squared.sqrt_()  # infinite where there is no title
    items, exact = grounder.nearest(chunk, min(MARGIN, grounder.item_count))  # where digits were lost
    listed = items.clamp(min=0)
    euclidean.scatter_(1, same[listed], torch.where(items < 0, euclidean.gather(1, same[listed]), exact))
    return grounder.distance(euclidean[:, same])


def _first_alike(table: Tensor) -> Tensor:
    """Return ``(I,)``: the first item with the very same vector, by a hash of its bytes."""
    first: dict[bytes, int] = {}
    alike = [
        first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), item)
        for item, row in enumerate(table.cpu().numpy())
    ]
    return torch.tensor(alike)
