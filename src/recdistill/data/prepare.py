"""From a log and its items to a dataset: filter, number, split. What ``recdistill data`` runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from recdistill.data.catalogue import Catalogue
from recdistill.data.filters import apply_filters
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import SequenceDataset
from recdistill.data.splits import TiePolicy, global_time, leave_one_out
from recdistill.errors import ConfigError
from recdistill.types import Split

SplitKind = Literal["leave-one-out", "global-time"]


def prepare(
    interactions: Interactions,
    items: pl.DataFrame | None = None,
    *,
    name: str = "dataset",
    split: SplitKind = "leave-one-out",
    window: int = 10,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    only_full: bool = False,
    tie_policy: TiePolicy = "index",
    min_rating: float | None = None,
    drop_untitled: bool = False,
    k_core: int = 0,
    min_length: int = 0,
    all_items: bool = False,
    sample: Mapping[Split, int] | None = None,
    seed: int = 42,
) -> SequenceDataset:
    """Filter a log, number its items and cut it into train, valid and test rows.

    Parameters
    ----------
    interactions
        The log.
    items
        ``item_id``, ``title`` and any other columns, or None.
    name
        Of the dataset, for tables.
    split
        ``"leave-one-out"`` or ``"global-time"``.
    window, ratios, only_full, tie_policy
        Of `global_time`; leave-one-out does not use them.
    min_rating, drop_untitled, k_core, min_length
        See `apply_filters`.
    all_items
        Number every row of `items`, also items that nobody met; by default only those of the filtered log.
    sample, seed
        See `global_time`.

    Raises
    ------
    ConfigError
        `split` does not exist.
    DataError
        The log cannot be used.

    Examples
    --------
    >>> log = Interactions.from_frame({"user_id": [1, 1, 1], "item_id": [7, 8, 9], "timestamp": [1, 2, 3]})
    >>> dataset = prepare(log, pl.DataFrame({"item_id": [7, 8, 9], "title": ["A", "B", "C"]}))
    >>> [dataset.catalogue.titles[item] for item in dataset.targets(dataset.rows("test"))]
    ['C']
    """
    if split not in ("leave-one-out", "global-time"):
        raise ConfigError(f"split is {split!r}. Allowed: leave-one-out, global-time.")
    kept, report = apply_filters(
        interactions,
        items,
        min_rating=min_rating,
        drop_untitled=drop_untitled,
        k_core=k_core,
        min_length=min_length,
    )
    ids = kept.frame["item_id"].unique().cast(pl.String)
    if all_items and items is not None:
        ids = pl.concat([ids, items["item_id"].cast(pl.String)])
    catalogue = Catalogue.from_items(items, ids)
    provenance: dict[str, Any] = {
        "name": name,
        "read": interactions.counts(),
        "filters": report,
        "titles": catalogue.title_report(),
    }
    if split == "leave-one-out":
        return leave_one_out(kept, catalogue, sample=sample, seed=seed, provenance=provenance)
    return global_time(
        kept,
        catalogue,
        window=window,
        ratios=ratios,
        only_full=only_full,
        tie_policy=tie_policy,
        sample=sample,
        seed=seed,
        provenance=provenance,
    )
