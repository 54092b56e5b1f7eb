"""A teacher's output as named arrays, keyed by row id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import KnowledgeError
from recdistill.knowledge.checks import check_contents, check_structure
from recdistill.knowledge.lists import grouped, keep_slots, repeated_slots
from recdistill.knowledge.scores import METRICS, exact_scores, list_scores
from recdistill.types import HELD_OUT, LEARNED, PAD, KnowledgeRows, Split

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
RowIds = Tensor | npt.ArrayLike
Policy = Literal["error", "skip", "mask"]

#: Fields with one entry a row.
ROW_FIELDS: Final[tuple[str, ...]] = (
    "ranking",
    "ranking_distance",
    "target_distance",
    "target_rank",
    "target_rank_unseen",
    "query_embeddings",
)
FIELDS: Final[tuple[str, ...]] = (*ROW_FIELDS, "item_embeddings")


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a teacher knows. Absent fields are None; arrays may be memory-mapped.

    Attributes
    ----------
    row_ids
        ``(N,)`` int64, ascending, unique: the rows the teacher was asked about (any split).
    item_count
        I.
    ranking
        ``(N, K)`` int32 item indices, best first, -1 where the list is shorter.
    ranking_distance
        ``(N, K)`` float32, smaller is better, non-negative, non-decreasing along a row; ignored where nothing
        is listed.
    target_distance
        ``(N,)`` float32, distance of the true item; NaN where unknown.
    target_rank
        ``(N,)`` int32, 0-based pessimistic rank of the true item in the whole catalogue; -1 where unknown.
    target_rank_unseen
        ``(N,)`` int32, the same among the items not in the row's history.
    query_embeddings
        ``(N, D)`` float32 or float16.
    item_embeddings
        ``(I, D)`` float32 or float16.
    manifest
        JSON-able: teacher, metric, encoder, options, dataset fingerprint.

    Raises
    ------
    KnowledgeError
        A shape or a type is wrong, or row ids are not ascending. `check` looks at the contents.
    """

    row_ids: Ints
    item_count: int
    ranking: npt.NDArray[np.int32] | None = None
    ranking_distance: Floats | None = None
    target_distance: Floats | None = None
    target_rank: npt.NDArray[np.int32] | None = None
    target_rank_unseen: npt.NDArray[np.int32] | None = None
    query_embeddings: Floats | None = None
    item_embeddings: Floats | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("row_ids", *FIELDS)}
        for name, array in check_structure(given, self.item_count).items():
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.row_ids)

    def __repr__(self) -> str:
        return (
            f"Knowledge({len(self)} rows, {self.item_count} items, {', '.join(self.fields) or 'no fields'})"
        )

    @property
    def fields(self) -> dict[str, npt.NDArray[Any]]:
        """The fields that are there, by name, without `row_ids`."""
        return {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}

    def check(self, targets: npt.ArrayLike | None = None) -> Knowledge:
        """Look at every value and return self. Reads everything, so a memory-mapped table comes into memory.

        Parameters
        ----------
        targets
            ``(N,)`` the true items, -1 where unknown. With them, a rank matrix that was saved as a list is
            recognised even where the distances do not betray it.

        Raises
        ------
        KnowledgeError
            Ids out of range or listed twice, distances that do not grow, values that are not finite, or ranks
            saved in place of items.
        """
        wanted = None if targets is None else np.asarray(targets, dtype=np.int64)
        check_contents(self.fields, self.item_count, wanted)
        return self

    def covers(self, row_ids: RowIds) -> npt.NDArray[np.bool_]:
        """Return ``(S,)``: whether the teacher was asked about each row."""
        return self._locate(row_ids)[1]

    def coverage(self, row_ids: RowIds) -> float:
        """Return the share of the rows that the teacher was asked about, 0 to 1 (1 for no rows)."""
        covered = self.covers(row_ids)
        return float(covered.mean()) if len(covered) else 1.0

    def rows_for(self, row_ids: RowIds) -> KnowledgeRows:
        """Join by row id: what the teacher says about S rows. Costs O(S), whatever N is.

        Parameters
        ----------
        row_ids
            ``(S,)`` in any order, repeats allowed. An id that is not there gives ``covered`` False, a list of
            `PAD` and NaN distances, and a zero query vector.
        """
        at, covered = self._locate(row_ids)
        lists = self._take("ranking", at, covered, PAD, np.int64)  # (S, K)
        distances = self._take("ranking_distance", at, covered, np.nan, np.float32)  # (S, K)
        if lists is not None and distances is not None:
            distances[lists == PAD] = np.nan
        target = self._take("target_distance", at, covered, np.nan, np.float32)  # (S,)
        queries = self._take("query_embeddings", at, covered, 0, np.float32)  # (S, D)
        return KnowledgeRows(torch.from_numpy(covered), *map(_tensor, (lists, distances, target, queries)))

    def select(self, policy: Policy, row_ids: npt.ArrayLike) -> Ints:
        """Return the rows to learn from, by the policy for rows that the teacher was not asked about.

        Parameters
        ----------
        policy
            ``error`` refuses such rows, ``skip`` leaves them out, ``mask`` keeps them: they teach through
            the student's own loss alone.
        row_ids
            ``(R,)``.

        Raises
        ------
        KnowledgeError
            ``policy="error"`` and a row lacks knowledge, or the policy does not exist.
        """
        wanted = np.asarray(row_ids, dtype=np.int64)
        if policy not in ("error", "skip", "mask"):
            raise KnowledgeError(f"coverage policy {policy!r} does not exist. Allowed: error, skip, mask.")
        if policy == "mask":
            return wanted
        covered = self.covers(wanted)
        if policy == "error" and not covered.all():
            missing = wanted[~covered]
            teacher = self.manifest.get("teacher", "TEACHER")
            raise KnowledgeError(
                f"{len(missing):,} of {len(wanted):,} rows have no knowledge (the first: row "
                f"{missing[0]}). Either every row is covered, or the coverage policy is 'skip' or 'mask'. "
                f"Ask the teacher about all rows with: recdistill teach {teacher} --dataset d/ --out k/"
            )
        return wanted[covered]

    def scales(self, row_ids: npt.ArrayLike) -> dict[str, float]:
        """Return medians over the covered rows: ``target_distance``, ``ranking_distance`` (over listed
        items).

        They put distances of any origin on one scale (spec 4.3: ``exp(-d)`` of raw distances is uniform).
        """
        at, covered = self._locate(row_ids)
        at = at[covered]
        medians: dict[str, float] = {}
        for name in ("target_distance", "ranking_distance"):
            array = getattr(self, name)
            if array is None:
                continue
            values = np.asarray(array[at], dtype=np.float32)
            if name == "ranking_distance" and self.ranking is not None:
                values = values[self.ranking[at] != PAD]
            values = values[np.isfinite(values)]
            if len(values):
                medians[name] = float(np.median(values))
        return medians

    def score(
        self,
        rows: RowIds,
        items: Tensor | npt.ArrayLike | None = None,
        *,
        temperature: float = 1.0,
        gap: float = 1.0,
    ) -> Tensor:
        """Score arbitrary items; larger is better.

        With query and item embeddings the score is exact, by `metric`: ``-‖g - z‖²``
        (``squared_l2``), ``-‖g - z‖`` (``l2``), ``cosine`` or ``dot``. Else it comes from the list:
        ``-distance`` of a listed item (``-position`` without distances), and `gap` below the worst of the
        list for every other item.

        Parameters
        ----------
        rows
            ``(n,)`` row ids.
        items
            ``(n, m)`` items, or None for the whole catalogue, ``(n, I)``.
        temperature
            Scores (before `gap`) are divided by it; the median distance of `scales` is a good choice.
        gap
            How far an item outside the list lies below the worst item in it.

        Returns
        -------
        Tensor
            ``(n, m)`` float32; NaN for rows that are not covered, ``-inf`` for `PAD` items.

        Raises
        ------
        KnowledgeError
            There are neither embeddings nor lists, or the metric is unknown.
        """
        at, covered = self._locate(rows)
        wanted = None if items is None else torch.as_tensor(items, dtype=torch.int64)
        if self.query_embeddings is not None and self.item_embeddings is not None:
            queries = np.asarray(self._take("query_embeddings", at, covered, 0, np.float32))
            scores = (
                exact_scores(torch.from_numpy(queries), self.item_table, wanted, self.metric) / temperature
            )
        else:
            said = self.rows_for(rows)
            if said.ranking is None:
                raise KnowledgeError(
                    "this knowledge cannot score items: it has neither query and item embeddings nor a "
                    "ranking. See what it has with: recdistill knowledge show k/"
                )
            scores = list_scores(
                said.ranking, said.ranking_distance, wanted, self.item_count, temperature, gap
            )
        if wanted is not None:
            scores = scores.masked_fill(wanted == PAD, -torch.inf)
        return scores.masked_fill(~torch.from_numpy(covered)[:, None], torch.nan)

    @property
    def learned(self) -> tuple[Split, ...]:
        """Splits that the teacher learned from besides the training rows: nothing can be measured on them."""
        return tuple(split for split in HELD_OUT if split in self.manifest.get(LEARNED, ()))

    @property
    def metric(self) -> str:
        """How query and item embeddings are compared: ``manifest["embedding_metric"]``, else ``["metric"]``.

        The two differ where distances are not those of the embeddings, such as negative log-probabilities.

        Raises
        ------
        KnowledgeError
            The manifest names none that exists.
        """
        metric = self.manifest.get("embedding_metric", self.manifest.get("metric"))
        if metric not in METRICS:
            raise KnowledgeError(
                f"query and item embeddings cannot be compared by {metric!r}. The manifest's "
                f"embedding_metric (or metric) must be one of: {', '.join(METRICS)}. Make the knowledge "
                "anew with: recdistill teach"
            )
        return str(metric)

    @cached_property
    def item_table(self) -> Tensor:
        """``(I, D)`` float32 item embeddings; read on first use.

        Raises
        ------
        KnowledgeError
            There are none.
        """
        if self.item_embeddings is None:
            raise KnowledgeError(
                "this knowledge has no item embeddings. The teachers 'embedding' and 'precomputed' make "
                "them: recdistill teach embedding --dataset d/ --out k/"
            )
        return torch.from_numpy(self.item_embeddings.astype(np.float32))

    def top(self, k: int) -> Knowledge:
        """Return the knowledge with lists cut to their first `k` items (views, nothing is copied)."""
        if self.ranking is None:
            return self
        distances = None if self.ranking_distance is None else self.ranking_distance[:, :k]
        return replace(self, ranking=self.ranking[:, :k], ranking_distance=distances)

    def restricted(self, row_ids: npt.ArrayLike) -> Knowledge:
        """Return what the teacher knows about some rows alone; ids that are not there are passed over."""
        wanted = np.isin(self.row_ids, np.asarray(row_ids, dtype=np.int64))
        if wanted.all():
            return self
        rows: dict[str, Any] = {
            name: array[wanted] for name, array in self.fields.items() if name in ROW_FIELDS
        }
        return replace(self, row_ids=self.row_ids[wanted], **rows)

    def without_duplicates(self, groups: npt.ArrayLike) -> Knowledge:
        """Keep the first listed item of each title in every list (spec 0.2 rule 4).

        Items with one title have one embedding: their distances tie, their order says nothing, and together
        they fill slots of the list. Target ranks and distances stay as they are, by item.

        Parameters
        ----------
        groups
            ``(I,)`` one integer a title, e.g. `title_groups`.
        """
        if self.ranking is None:
            return self
        repeated = repeated_slots(grouped(self.ranking, np.asarray(groups, dtype=np.int64)))
        lists, distances = keep_slots(self.ranking, ~repeated & (self.ranking != PAD), self.ranking_distance)
        manifest = {**self.manifest, "title_duplicates": "first listed item kept"}
        return replace(self, ranking=lists.astype(np.int32), ranking_distance=distances, manifest=manifest)

    def _locate(self, row_ids: RowIds) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return where each row is (0 where it is not) and whether it is there, both ``(S,)``."""
        wanted = row_ids.cpu().numpy() if isinstance(row_ids, Tensor) else np.asarray(row_ids, dtype=np.int64)
        if not len(self.row_ids):
            return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
        at = np.searchsorted(self.row_ids, wanted)
        at[at == len(self.row_ids)] = 0
        return at, self.row_ids[at] == wanted

    def _take(
        self, name: str, at: Ints, covered: npt.NDArray[np.bool_], absent: float, dtype: npt.DTypeLike
    ) -> npt.NDArray[Any] | None:
        array: npt.NDArray[Any] | None = getattr(self, name)
        if array is None:
            return None
        if not len(array):
            return np.full((len(at), *array.shape[1:]), absent, dtype=dtype)
        taken = array[at].astype(dtype, copy=False)
        if not covered.all():
            taken[~covered] = absent
        return taken


def _tensor(array: npt.NDArray[Any] | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)
