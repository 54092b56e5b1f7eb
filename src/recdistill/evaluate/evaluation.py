"""The ranks of one model on one split: its metrics, its comparison with others, its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.errors import ConfigError, DataError, RunError
from recdistill.evaluate.accuracy import KS, mean_metrics, row_metric
from recdistill.evaluate.significance import Comparison, compare_rows
from recdistill.runs import atomic_folder, read_manifest, write_json, write_manifest
from recdistill.types import SPLITS, Split

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Where one model ranks the target of each row.

    Attributes
    ----------
    name
        Name of the model, for tables; runs of one model with several seeds share it.
    split
        ``"train"``, ``"valid"`` or ``"test"``.
    row_ids
        ``(n,)`` int64, ascending and unique.
    ranks
        ``(n,)`` int64, ``0 .. item_count - 1``, 0 is best. A model that ranks only its first K items
        gives the others ``item_count - 1``; its metrics are then exact up to K.
    item_count
        I, how many items compete.
    filter_seen
        Whether the items of each row's history were kept out of the competition.
    seed
        The seed of the run, or None.
    dataset
        Fingerprint of the dataset, or None where it is not known.
    """

    name: str
    split: Split
    row_ids: Ints
    ranks: Ints
    item_count: int
    filter_seen: bool
    seed: int | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(
                f"unknown split {self.split!r}. Allowed: {', '.join(SPLITS)}. Pass one of them."
            )
        ids, ranks = np.asarray(self.row_ids, np.int64), np.asarray(self.ranks, np.int64)
        object.__setattr__(self, "row_ids", ids)
        object.__setattr__(self, "ranks", ranks)
        if ids.ndim != 1 or ids.shape != ranks.shape or not len(ids):
            raise DataError(
                f"{self.name}: {ids.shape} row ids and {ranks.shape} ranks; one rank for each of at "
                "least one row is needed. Rank the same rows that the ids are taken from."
            )
        if bool((np.diff(ids) <= 0).any()):
            raise DataError(
                f"{self.name}: row ids must be ascending and unique. Sort the rows before ranking them."
            )
        if int(ranks.min()) < 0 or int(ranks.max()) >= self.item_count:
            raise DataError(
                f"{self.name}: ranks lie in {ranks.min()}..{ranks.max()}; with {self.item_count} items they "
                f"must lie in 0..{self.item_count - 1}. Give a row that was not ranked the last rank, or "
                "leave it out."
            )

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def protocol(self) -> str:
        """What was asked, in words: ``"test, 14,980 rows, 17,408 items, seen items filtered"``."""
        seen = "filtered" if self.filter_seen else "kept"
        return f"{self.split}, {len(self):,} rows, {self.item_count:,} items, seen items {seen}"

    def metrics(self, ks: Sequence[int] = KS) -> dict[str, float]:
        """Return mean HR, NDCG and MRR at each k: ``{"hr@1": ..., "ndcg@1": ..., "mrr@1": ..., ...}``."""
        return mean_metrics(self.ranks, ks)

    def per_row(self, metric: str) -> Floats:
        """Return ``(n,)`` values of a metric such as ``"ndcg@20"``, in the order of `row_ids`."""
        return row_metric(self.ranks, metric)

    def slices(self, masks: Mapping[str, Bools], ks: Sequence[int] = KS) -> dict[str, dict[str, float]]:
        """Return the metrics of each slice, with ``"n"``, its number of rows; an empty slice has only that.

        Parameters
        ----------
        masks
            Name → ``(n,)`` bool in the order of `row_ids` (see `recdistill.evaluate.slices`).
        ks
            Cut-offs.
        """
        result: dict[str, dict[str, float]] = {}
        for name, mask in masks.items():
            chosen = self.restrict(mask, slice_name=name)
            result[name] = {"n": float(len(chosen)), **(mean_metrics(chosen, ks) if len(chosen) else {})}
        return result

    def restrict(self, mask: Bools, *, slice_name: str = "slice") -> Ints:
        """Return the ranks of the rows in a ``(n,)`` mask.

        Raises
        ------
        DataError
            The mask is not ``(n,)`` bool.
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != self.ranks.shape:
            raise DataError(
                f"the mask of slice {slice_name!r} is {mask.dtype} of shape {mask.shape}; bool of shape "
                f"{self.ranks.shape} is needed. Make it from the rows that were evaluated."
            )
        return self.ranks[mask]

    def only(self, mask: Bools, *, slice_name: str = "slice") -> Evaluation:
        """Return the evaluation of the rows in a ``(n,)`` mask alone.

        Raises
        ------
        DataError
            The mask is not ``(n,)`` bool, or no row is in it.
        """
        ranks = self.restrict(mask, slice_name=slice_name)
        return replace(self, row_ids=self.row_ids[mask], ranks=ranks)

    def compare(
        self,
        other: Evaluation | Sequence[Evaluation],
        metric: str = "ndcg@20",
        *,
        permutations: int = 10_000,
        resamples: int = 2_000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Comparison:
        """Compare this model with another one, or with several seeds of another one.

        Parameters
        ----------
        other
            The reference; a positive difference means that this model is better.
        metric
            Such as ``"ndcg@20"``.
        permutations, resamples, confidence, seed
            See `recdistill.evaluate.significance.compare_rows`.

        Raises
        ------
        ConfigError
            The two did not answer the same questions under the same rules.
        """
        others = [other] if isinstance(other, Evaluation) else list(other)
        return compare_evaluations(
            [self],
            others,
            metric,
            permutations=permutations,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )

    def save(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Write ``ranks.parquet`` (row_id, rank), ``metrics.json`` and ``manifest.json``, or nothing.

        Raises
        ------
        RunError
            The folder is not empty and `overwrite` is False.
        """
        with atomic_folder(Path(folder), overwrite=overwrite) as out:
            pl.DataFrame({"row_id": self.row_ids, "rank": self.ranks}).write_parquet(out / "ranks.parquet")
            write_json(out / "metrics.json", self.metrics())
            facts = ("name", "split", "item_count", "filter_seen", "seed", "dataset")
            write_manifest(out, "evaluation", {fact: getattr(self, fact) for fact in facts})

    @classmethod
    def load(cls, folder: Path | str) -> Evaluation:
        """Read a folder that `save` wrote.

        Raises
        ------
        RunError
            It is not an evaluation folder, or is incomplete.
        """
        folder = Path(folder)
        facts = read_manifest(folder, "evaluation")
        try:
            frame = pl.read_parquet(folder / "ranks.parquet")
            ids, ranks = (frame[name].to_numpy() for name in ("row_id", "rank"))
            return cls(
                row_ids=ids,
                ranks=ranks,
                **{fact: value for fact, value in facts.items() if fact not in ("kind", "schema")},
            )
        except (FileNotFoundError, pl.exceptions.PolarsError, TypeError) as error:
            raise RunError(
                f"{folder} is no complete evaluation folder ({error}). Make it anew with recdistill evaluate."
            ) from None


def compare_evaluations(
    model: Sequence[Evaluation],
    reference: Sequence[Evaluation],
    metric: str = "ndcg@20",
    *,
    mask: Bools | None = None,
    permutations: int = 10_000,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare the seeds of one model with the seeds of a reference on the same rows.

    Parameters
    ----------
    model, reference
        One evaluation a seed, at least one each.
    metric
        Such as ``"ndcg@20"``.
    mask
        ``(n,)`` bool, the rows to compare on; all by default.
    permutations, resamples, confidence, seed
        See `recdistill.evaluate.significance.compare_rows`.

    Raises
    ------
    ConfigError
        They did not answer the same questions under the same rules.
    """
    require_same_protocol([*model, *reference])
    chosen = slice(None) if mask is None else mask
    return compare_rows(
        np.stack([one.per_row(metric)[chosen] for one in model]),
        np.stack([one.per_row(metric)[chosen] for one in reference]),
        metric=metric,
        model=model[0].name,
        reference=reference[0].name,
        permutations=permutations,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def require_same_protocol(evaluations: Sequence[Evaluation]) -> None:
    """Refuse evaluations that asked different questions: they are never put in one table.

    Raises
    ------
    ConfigError
        There is none, or two differ in dataset, split, items, rows or in whether seen items compete.
    """
    if not evaluations:
        raise ConfigError(
            "there is nothing to compare: at least one evaluation is needed. Run recdistill evaluate."
        )
    first = evaluations[0]
    for other in evaluations[1:]:
        difference = _difference(first, other)
        if difference:
            raise ConfigError(
                f"{other.name!r} and {first.name!r} cannot be compared: {difference}. Only results on the "
                "same dataset, split, rows, items and with the same treatment of seen items are put in one "
                "table. Evaluate both in the same way with recdistill evaluate."
            )


def _difference(first: Evaluation, other: Evaluation) -> str | None:
    """Say in which respect two protocols differ, or None."""
    if first.dataset and other.dataset and first.dataset != other.dataset:
        return f"they are of two datasets ({other.dataset[:12]} and {first.dataset[:12]})"
    if first.split != other.split:
        return f"one is on {other.split}, the other on {first.split}"
    if first.item_count != other.item_count:
        return f"{other.item_count:,} items compete in one, {first.item_count:,} in the other"
    if first.filter_seen != other.filter_seen:
        words = {True: "filtered", False: "kept"}
        return f"seen items are {words[other.filter_seen]} in one, {words[first.filter_seen]} in the other"
    if not np.array_equal(first.row_ids, other.row_ids):
        common = len(np.intersect1d(first.row_ids, other.row_ids, assume_unique=True))
        return f"they hold {len(other):,} and {len(first):,} rows, of which {common:,} are the same"
    return None
