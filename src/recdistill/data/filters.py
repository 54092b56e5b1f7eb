"""Filters on a log. Each returns the rows that stay; `apply_filters` also counts what each one took."""

from __future__ import annotations

from typing import Any

import polars as pl

from recdistill.data.interactions import Interactions
from recdistill.errors import DataError
from recdistill.titles import normalise_title

_SHORTEST_TITLE = 2  # BIGRec removes items whose title has at most one character


def at_least_rating(interactions: Interactions, minimum: float) -> Interactions:
    """Keep rows with a rating of at least `minimum`.

    Raises
    ------
    DataError
        The log has no ratings.
    """
    if "rating" not in interactions.frame.columns:
        raise DataError(
            f"min rating {minimum} needs ratings, and this source has none. Leave --min-rating out."
        )
    return interactions.with_frame(interactions.frame.filter(pl.col("rating") >= minimum))


def with_title(interactions: Interactions, items: pl.DataFrame) -> Interactions:
    """Keep rows whose item has a title of at least two characters."""
    titles = items["title"].cast(pl.String).fill_null("")
    usable = titles.map_elements(normalise_title, return_dtype=pl.String, skip_nulls=False).str.len_chars()
    known = items["item_id"].cast(pl.String).filter(usable >= _SHORTEST_TITLE).unique()
    kept = interactions.frame.filter(pl.col("item_id").cast(pl.String).is_in(known.implode()))
    return interactions.with_frame(kept)


def core(interactions: Interactions, *, users: int = 0, items: int = 0) -> Interactions:
    """Keep the largest part of the log in which every user has `users` events and every item `items`.

    With ``users == items == k`` this is the k-core. Rows are counted, not distinct pairs, as in the published
    5-core files. The part is unique: the order of removal does not matter.
    """
    frame = interactions.frame
    while True:
        enough = (pl.len().over("user_id") >= users) & (pl.len().over("item_id") >= items)
        kept = frame.filter(enough)
        if kept.height == frame.height:
            return interactions.with_frame(kept)
        frame = kept


def apply_filters(
    interactions: Interactions,
    items: pl.DataFrame | None = None,
    *,
    min_rating: float | None = None,
    drop_untitled: bool = False,
    k_core: int = 0,
    min_length: int = 0,
) -> tuple[Interactions, list[dict[str, Any]]]:
    """Apply the filters in this order: rating, title, then k-core and sequence length together.

    Returns
    -------
    tuple
        The log that stays, and one record per filter: ``filter``, its value, counts ``before`` and ``after``.

    Raises
    ------
    DataError
        Nothing stays.
    """
    report: list[dict[str, Any]] = []

    def keep(name: str, value: float | bool, kept: Interactions) -> Interactions:
        report.append(
            {"filter": name, "value": value, "before": interactions.counts(), "after": kept.counts()}
        )
        if not len(kept):
            raise DataError(f"the filter {name} = {value} leaves no interaction. Allowed: a weaker one.")
        return kept

    if min_rating is not None:
        interactions = keep("min_rating", min_rating, at_least_rating(interactions, min_rating))
    if drop_untitled:
        if items is None:
            raise DataError("drop_untitled needs an item table with titles. Pass the items, or leave it out.")
        interactions = keep("drop_untitled", True, with_title(interactions, items))
    if k_core > 1:
        users = max(k_core, min_length)
        interactions = keep("k_core", k_core, core(interactions, users=users, items=k_core))
    elif min_length > 1:
        interactions = keep("min_length", min_length, core(interactions, users=min_length))
    return interactions, report
