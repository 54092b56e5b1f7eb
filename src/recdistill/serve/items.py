"""The items of a served catalogue: raw id or title to index, and back, without a Python object for each item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.columns import TextColumn
from recdistill.errors import ConfigError
from recdistill.serve.search import TitleSearch
from recdistill.titles import normalise_title

Ints = npt.NDArray[np.int64]

#: Between the values of a cell such as ``Action|Comedy``.
SEPARATOR: Final = "|"
#: A column with more distinct values than this is a text, not a category.
MOST_VALUES: Final = 5000
#: Items with the same title looked at before the first of them is taken.
_SAME_TITLE: Final = 1000


class NameIndex:
    """Finds the rows of a name by its hash; 16 bytes a row.

    Python salts the hash of texts at each start, so nobody can prepare names that collide.
    """

    def __init__(self, names: Iterable[str], count: int) -> None:
        hashes = np.fromiter((hash(name) for name in names), dtype=np.int64, count=count)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def rows(self, name: str) -> Ints:
        """Return the rows whose hash is that of `name`, ascending; the caller compares the names."""
        wanted = np.int64(hash(name))
        start, stop = (
            np.searchsorted(self._hashes, wanted, "left"),
            np.searchsorted(self._hashes, wanted, "right"),
        )
        return self._order[start:stop]


class Items:
    """The I items.

    Parameters
    ----------
    columns
        ``item_id`` and ``title`` as `TextColumn`; further text columns, which may be categories; ``popularity (I,)``
        if it is known.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.ids: TextColumn = columns["item_id"]
        self.titles: TextColumn = columns["title"]
        self.popularity = columns.get("popularity")
        self._texts = {
            name: column
            for name, column in columns.items()
            if isinstance(column, TextColumn) and name not in ("item_id", "title")
        }
        self._by_id = NameIndex(self.ids, len(self.ids))
        self._by_title = NameIndex((title.casefold() for title in self.titles), len(self.titles))
        self.search = TitleSearch(self.titles, self.popularity)

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, name: str) -> int | None:
        """Return the index of a raw id or a title, or None.

        As in `recdistill.data.Catalogue.index_of`: an id wins over a title; a title is compared after
        `normalise_title`, then without regard to case; of several items the first counts.
        """
        for row in self._by_id.rows(name).tolist():
            if self.ids[row] == name:
                return int(row)
        title = normalise_title(name)
        if not title:
            return None
        first = None
        for row in self._by_title.rows(title.casefold())[:_SAME_TITLE].tolist():
            found = self.titles[row]
            if found == title:
                return int(row)
            if first is None and found.casefold() == title.casefold():
                first = int(row)
        return first

    @cached_property
    def categories(self) -> dict[str, dict[str, Ints]]:
        """Column to value, in lower case, to the ascending items that have it; only columns of few values."""
        found = {}
        for name, column in self._texts.items():
            if (values := _values(column)) is not None:
                found[name] = values
        return found

    def in_category(self, column: str, values: Iterable[str]) -> Ints:
        """Return the ascending items that have one of the values in a column.

        Raises
        ------
        ConfigError
            The column is no category of this catalogue, or no item has the value.
        """
        known = self.categories.get(column)
        if known is None:
            allowed = ", ".join(self.categories) or "none: this catalogue has no category"
            raise ConfigError(f"no category {column!r}. Allowed: {allowed}. See GET /models.")
        parts = []
        for value in values:
            items = known.get(value.strip().casefold())
            if items is None:
                near = ", ".join(sorted(known)[:8])
                raise ConfigError(
                    f"no item has the {column} {value!r}. Allowed: one of {len(known)}, e.g. {near}."
                )
            parts.append(items)
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)


def _values(column: TextColumn) -> dict[str, Ints] | None:
    """Return value to items, or None if there are too many values, or none that two items share."""
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(column):
        for part in cell.split(SEPARATOR):
            if value := part.strip().casefold():
                rows.setdefault(value, []).append(row)
        if len(rows) > MOST_VALUES:
            return None
    if not rows or max(len(items) for items in rows.values()) < 2:
        return None
    return {value: np.array(items, dtype=np.int64) for value, items in rows.items()}
