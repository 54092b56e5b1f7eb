"""Grounding: from the vector of a generated text to a ranking of the whole catalogue.

Bao et al., "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems" (BIGRec,
arXiv 2308.08434); eq. 4 of DLLM2Rec (arXiv 2405.00338): ``d_si = ‖z(g_s) - z_i‖²``, nearest first. BIGRec's code
takes the root. The order is the same, a confidence made of the distances is not, so the metric is recorded.

How it is computed. Distances do not change when all vectors move together, so the catalogue's mean is taken away
first: vectors of language models share a large one, and ``‖g‖² + ‖z‖² - 2 g·z`` would lose its digits to it. One
matrix product a chunk then finds who may be among the K nearest; their distances, the target's, and those of every
item so close to the target that rounding could decide, are computed again by differences. So a text that is a title
has distance 0, items with one vector tie exactly, and nothing as large as ``(N, I)`` is ever held.

Rules. Equal distances go by ascending item. A target's rank counts its ties against it (pessimistic). Items without
a title are never listed; a target without one has no distance and stands last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.base import Progress
from recdistill.teachers.grounding.beams import put_first
from recdistill.teachers.grounding.result import Grounding, Ranked, grounding_of
from recdistill.types import PAD

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Metric = Literal["l2", "squared_l2", "cosine"]
METRICS: Final[tuple[str, ...]] = get_args(Metric)

#: Distances of one chunk, (B, I): 2**23 float32 are 32 MiB.
CHUNK_ELEMENTS: Final = 1 << 23
#: Differences that are held at once: 2**20 float32 are 4 MiB, which stay in the processor's cache.
DIFFERENCE_ELEMENTS: Final = 1 << 20
#: Candidates beyond K that are measured exactly before anyone is turned away.
MARGIN: Final = 16
#: Error bound of the matrix product, as a share of ``‖g‖² + max‖z‖²``: some 80 units of float32 rounding.
SLACK: Final = 1e-5


@dataclass(frozen=True, eq=False)
class Chunk:
    """One chunk of B queries against all items, in the grounder's centred space.

    Attributes
    ----------
    where
        Which of the queries.
    queries
        ``(B, D)``.
    product
        ``(B, I)`` ``½‖z‖² - g·z``, that is ``½d² - ½‖g‖²``; infinite for items without a title.
    half
        ``(B,)`` ``½‖g‖²``.
    slack
        ``(B,)`` by how much `product` may be wrong.
    """

    where: slice
    queries: Tensor
    product: Tensor
    half: Tensor
    slack: Tensor


class Grounder:
    """Ranks the catalogue by distance from query vectors.

    Parameters
    ----------
    items
        ``(I, D)`` item vectors.
    usable
        ``(I,)`` bool: items with a title; the others are never listed.
    metric
        ``l2`` (BIGRec's code), ``squared_l2`` (eq. 4) or ``cosine`` (one minus the cosine).
    device
        Where to compute; by default the first GPU, else the CPU. Always float32.

    Raises
    ------
    ConfigError
        The metric does not exist, the shapes do not fit, a value is not finite, or no item has a title.
    """

    def __init__(
        self,
        items: npt.NDArray[Any],
        usable: npt.NDArray[np.bool_] | None = None,
        *,
        metric: str = "l2",
        device: str | None = None,
    ) -> None:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        keep = np.ones(len(items), dtype=np.bool_) if usable is None else np.asarray(usable, dtype=np.bool_)
        if items.ndim != 2 or keep.shape != items.shape[:1] or not keep.any():
            raise ConfigError(
                f"cannot ground on item vectors of shape {items.shape} of which {int(keep.sum())} have a title. "
                "Allowed: one vector an item, and at least one item with a title. Check the titles with: "
                "recdistill data stats"
            )
        self.metric = metric
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.usable = torch.from_numpy(keep).to(self.device)
        self.centre = torch.zeros(items.shape[1], device=self.device)
        table = self._moved(items)  # a copy, centred in place below
        self.centre = table[self.usable].mean(0)  # (D,)
        self.table = table.sub_(self.centre)  # (I, D)
        half = _lengths(self.table).square() / 2
        self.largest = float(half[self.usable].max())
        self.half = half.masked_fill_(~self.usable, torch.inf)  # (I,)

    @property
    def item_count(self) -> int:
        """I."""
        return len(self.table)

    def ground(
        self,
        queries: npt.NDArray[Any],
        targets: Ints,
        seen: tuple[Ints, Ints],
        *,
        top_k: int = 50,
        beams: tuple[Ints, Ints] | None = None,
        progress: Progress | None = None,
    ) -> Grounding:
        """Rank all items for each query.

        Parameters
        ----------
        queries
            ``(n, D)`` vectors of the generated texts.
        targets
            ``(n,)`` true items.
        seen
            Pairs ``(k,)`` of query index and item of its history, as `SequenceDataset.seen` gives them.
        top_k
            K, at most I.
        beams
            ``(n, F)`` items to be put first and the beams that named them (`TitleIndex.named`), or None.
        progress
            Called with the count of each finished chunk.

        Raises
        ------
        ConfigError
            `top_k` is out of range, or a query vector is not finite or has another width.
        """
        top_k = self.check(queries, top_k)
        parts = []
        for chunk in self.chunks(queries):
            target = torch.from_numpy(targets[chunk.where]).to(self.device)
            pairs = seen_in(seen, chunk.where, self.device)
            items, distance = self.nearest(chunk, top_k)
            ranks, near = self._target(chunk, target, pairs)
            ranked = Ranked(items, self.distance(distance), self.distance(near), ranks)
            if beams is not None:
                named, beam = (torch.from_numpy(a[chunk.where]).to(self.device) for a in beams)
                measured = self.distance(self.measured(chunk.queries, named.clamp(min=0)))
                ranked = put_first(
                    ranked, named, beam, measured, target, is_seen(named, pairs, self.item_count)
                )
            parts.append(grounding_of(ranked))
            if progress is not None:
                progress(len(target))
        return Grounding.joined(parts)

    def check(self, queries: npt.NDArray[Any], top_k: int) -> int:
        """Return `top_k`, cut to the catalogue's size, after looking at the queries."""
        if queries.ndim != 2 or queries.shape[1] != self.table.shape[1] or not len(queries):
            raise ConfigError(
                f"query vectors have shape {queries.shape}, item vectors {tuple(self.table.shape)}. Both must come "
                "from one encoder: ground again with recdistill teach bigrec --stage ground"
            )
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}. Allowed: 1 to the number of items. Pass --top-k 50.")
        return min(top_k, self.item_count)

    def chunks(self, queries: npt.NDArray[Any]) -> Iterator[Chunk]:
        """Yield the queries in chunks of `CHUNK_ELEMENTS` distances."""
        size = max(1, CHUNK_ELEMENTS // self.item_count)
        for start in range(0, len(queries), size):
            where = slice(start, min(start + size, len(queries)))
            part = self._moved(queries[where]).sub_(self.centre)  # (B, D)
            product = torch.addmm(self.half, part, self.table.T, alpha=-1)  # (B, I)
            half = _lengths(part).square() / 2  # (B,)
            yield Chunk(where, part, product, half, SLACK * (half + self.largest))

    def nearest(self, chunk: Chunk, count: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, count)`` the nearest items and their Euclidean distances, exact and in order.

        Where too many items lie as near as the last of the candidates, the row looks among twice as many.
        """
        items = torch.full((len(chunk.queries), count), PAD, device=self.device)
        found = torch.full(items.shape, torch.inf, device=self.device)
        rows = torch.arange(len(items), device=self.device)
        wide = count + MARGIN
        while len(rows):
            wide = min(wide, self.item_count)
            product, candidates = chunk.product[rows].topk(wide, dim=1, largest=False)  # (b, wide)
            exact = self.measured(chunk.queries[rows], candidates)
            exact, candidates = in_order(exact, candidates, count)
            items[rows], found[rows] = candidates.masked_fill(exact.isinf(), PAD), exact
            last = exact[:, -1].square() / 2 - chunk.half[rows]  # (b,)
            complete = (last < product[:, -1] - chunk.slack[rows]) | (wide == self.item_count)
            rows, wide = rows[~complete], 2 * wide
        return items, found

    def measured(self, queries: Tensor, items: Tensor) -> Tensor:
        """Return ``(b, m)`` Euclidean distances by differences; infinite for items without a title.

        Parameters
        ----------
        queries
            ``(b, D)``, centred.
        items
            ``(b, m)``, none of them `PAD`.
        """
        rows, width = items.shape
        found = torch.empty(rows, width, device=self.device)
        step = max(1, DIFFERENCE_ELEMENTS // max(1, width * queries.shape[1]))
        for start in range(0, rows, step):
            part = items[start : start + step]
            vectors = self.table.index_select(0, part.flatten()).view(*part.shape, -1)  # (c, m, D)
            found[start : start + step] = _lengths(vectors.sub_(queries[start : start + step, None]))
        return found.masked_fill_(~self.usable[items], torch.inf)

    def distance(self, euclidean: Tensor) -> Tensor:
        """Turn Euclidean distances (of vectors of length 1, for the cosine) into those of the metric."""
        if self.metric == "l2":
            return euclidean
        return euclidean.square() / (2 if self.metric == "cosine" else 1)

    def _moved(self, vectors: npt.NDArray[Any]) -> Tensor:
        """Return a float32 copy on the device, of length 1 for the cosine."""
        moved = torch.from_numpy(np.array(vectors, dtype=np.float32)).to(self.device)
        if not bool(moved.sum().isfinite()) and not bool(moved.isfinite().all()):
            raise ConfigError(
                "a vector to be grounded is not finite. Vectors must be finite: load the encoder in float32 "
                "(--dtype float32) and ground again with recdistill teach bigrec --stage ground"
            )
        return torch.nn.functional.normalize(moved, dim=1) if self.metric == "cosine" else moved

    def _target(self, chunk: Chunk, target: Tensor, seen: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return ``(2, B)`` ranks of the targets, seen items kept and dropped, and their ``(B,)`` distances."""
        product = chunk.product
        at = product.gather(1, target[:, None])  # (B, 1)
        low, high = at - chunk.slack[:, None], at + chunk.slack[:, None]
        sure = _count(product < low)  # (B,)
        near = self.measured(chunk.queries, target[:, None])[:, 0]  # (B,)
        unsure = (_count(product <= high) - sure > 1).nonzero().squeeze(1)  # more than the target itself
        owner, item = ((product[unsure] >= low[unsure]) & (product[unsure] <= high[unsure])).nonzero(
            as_tuple=True
        )
        owner = unsure[owner]
        closer = self._not_behind(chunk, near, owner, item) & (item != target[owner])
        kept = sure.index_add(0, owner, closer.long())
        owner, item = _distinct(*seen, self.item_count)
        owner, item = (pair[item != target[owner]] for pair in (owner, item))
        value = product[owner, item]
        above = value < low[owner, 0]
        close = (~above & (value <= high[owner, 0])).nonzero().squeeze(1)
        above[close] = self._not_behind(chunk, near, owner[close], item[close])
        dropped = torch.zeros_like(kept).index_add_(0, owner, above.long())
        return torch.stack([kept, kept - dropped]), near

    def _not_behind(self, chunk: Chunk, near: Tensor, owner: Tensor, item: Tensor) -> Tensor:
        """Return ``(p,)``: whether each item lies no farther from its query than that row's target."""
        found = torch.empty(len(item), device=self.device)
        step = max(1, DIFFERENCE_ELEMENTS // chunk.queries.shape[1])
        for start in range(0, len(item), step):
            part = slice(start, start + step)
            found[part] = self.measured(chunk.queries[owner[part]], item[part, None])[:, 0]
        return found <= near[owner]


def seen_in(seen: tuple[Ints, Ints], where: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the pairs whose first member lies in the slice, counted from its start.

    Parameters
    ----------
    seen
        Pairs ``(k,)`` of ascending query index and item.
    where
        A slice of the queries.
    device
        Where the pairs are wanted.
    """
    begin, end = np.searchsorted(seen[0], [where.start, where.stop])
    owner, item = seen[0][begin:end] - where.start, seen[1][begin:end]
    return torch.from_numpy(owner).to(device), torch.from_numpy(item).to(device)


def is_seen(items: Tensor, seen: tuple[Tensor, Tensor], width: int) -> Tensor:
    """Return ``(B, F)``: which items are in the history of their row; `width` is I, `PAD` never is."""
    rows = torch.arange(len(items), device=items.device)[:, None]
    return torch.isin(rows * width + items, seen[0] * width + seen[1]) & (items != PAD)


def in_order(distance: Tensor, items: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sort ``(b, m)`` by distance, then item, and cut to `count` columns."""
    by_item = items.argsort(1)
    distance, items = distance.gather(1, by_item), items.gather(1, by_item)
    order = distance.argsort(dim=1, stable=True)[:, :count]
    return distance.gather(1, order), items.gather(1, order)


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return lengths


def _count(mask: Tensor) -> Tensor:
    """Count the true entries of each row; numpy's way is several times faster than torch's on a CPU."""
    if mask.is_cuda:
        return mask.sum(1)
    return torch.from_numpy(np.count_nonzero(mask.numpy(), axis=1))


def _distinct(owner: Tensor, item: Tensor, width: int) -> tuple[Tensor, Tensor]:
    pairs = torch.from_numpy(np.unique((owner * width + item).cpu().numpy())).to(owner.device)
    return pairs // width, pairs % width
