"""The items: raw id, index, title, further text columns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.errors import DataError
from recdistill.titles import normalise_title

_NO_TITLE = frozenset({"", "none", "nan", "null", "n/a"})


def sorted_ids(ids: pl.Series) -> pl.Series:
    """Return the distinct ids in numbering order: by number if all are whole numbers, else by code point.

    Numbers that are written differently (``"7"``, ``"007"``) stay two ids.
    """
    distinct = ids.unique()
    if distinct.dtype.is_integer():
        return distinct.sort()
    text = distinct.cast(pl.String)
    number = text.cast(pl.Int64, strict=False)
    if number.null_count():
        return text.sort()
    return pl.DataFrame({"number": number, "text": text}).sort("number", "text")["text"]


class Catalogue:
    """Raw ids, titles and text columns of the I items; row k of the frame is item index k.

    Parameters
    ----------
    frame
        Columns ``item_id`` (string, unique) and ``title`` (string, empty where unknown), plus any others.

    Raises
    ------
    DataError
        A column is missing, or an id occurs twice.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        missing = {"item_id", "title"} - set(frame.columns)
        if missing:
            raise DataError(
                f"the item table has no column {', '.join(sorted(missing))} (it has "
                f"{', '.join(frame.columns)}). A catalogue needs item_id and title: rename the columns, or "
                "use Catalogue.from_items."
            )
        self.frame = frame.with_columns(
            pl.col("item_id").cast(pl.String), pl.col("title").cast(pl.String).fill_null("")
        )
        if self.frame["item_id"].n_unique() != frame.height:
            twice = self.frame.filter(pl.col("item_id").is_duplicated())["item_id"][0]
            raise DataError(f"item id {twice!r} occurs twice. Ids must be unique: use Catalogue.from_items.")

    @classmethod
    def from_items(cls, items: pl.DataFrame | None, item_ids: pl.Series | Sequence[str]) -> Catalogue:
        """Number the items `item_ids` and give each its title and text columns from `items`.

        Parameters
        ----------
        items
            Columns ``item_id``, ``title`` and any others, or None where no titles exist. The first row of an
            id counts. Titles go through `normalise_title`; the other columns become text.
        item_ids
            Raw ids; repeated ids are merged. Numbered in the order of `sorted_ids`.
        """
        ids = sorted_ids(pl.Series("item_id", item_ids)).cast(pl.String).rename("item_id").to_frame()
        if items is None or not items.height:
            return cls(ids.with_columns(title=pl.lit("")))
        if "title" not in items.columns:
            items = items.with_columns(title=pl.lit(""))
        table = items.with_columns(pl.all().cast(pl.String)).unique(
            "item_id", keep="first", maintain_order=True
        )
        joined = ids.join(table, on="item_id", how="left", maintain_order="left").fill_null("")
        titles = [_usable(normalise_title(title)) for title in joined["title"]]
        others = [name for name in joined.columns if name not in ("item_id", "title")]
        return cls(joined.select("item_id", pl.Series("title", titles, dtype=pl.String), *others))

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def raw_ids(self) -> list[str]:
        """The ``I`` raw ids in index order."""
        return self.frame["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """The ``I`` titles in index order; empty where the source has none."""
        return self.frame["title"].to_list()

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns besides ``item_id``, the title first."""
        return ["title", *(name for name in self.frame.columns if name not in ("item_id", "title"))]

    def text(self, columns: Sequence[str] = ("title",), *, separator: str = ". ") -> list[str]:
        """Return one text per item: its non-empty `columns`, joined by `separator`.

        Raises
        ------
        DataError
            A column does not exist.
        """
        unknown = [name for name in columns if name not in self.text_columns]
        if unknown:
            raise DataError(
                f"the catalogue has no column {unknown[0]!r}. Allowed: {', '.join(self.text_columns)}."
            )
        table = self.frame.select(columns).rows()
        return [separator.join(field for field in row if field) for row in table]

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {raw: index for index, raw in enumerate(self.raw_ids)}

    @cached_property
    def _index_by_title(self) -> dict[str, int]:
        """First index of each title, and of each title without case where no title is written like that."""
        newest_first = [(title, index) for index, title in enumerate(self.titles) if title][::-1]
        return {title.casefold(): index for title, index in newest_first} | dict(newest_first)

    def index_of(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the ``(n,)`` indices of raw ids or titles.

        A raw id wins over a title of the same spelling; a title is compared after `normalise_title`, then
        without regard to case; a title that several items share stands for the first of them.

        Raises
        ------
        DataError
            A name is neither an id nor a title; the message lists the nearest ones.
        """
        return np.array([self._find(str(name)) for name in names], dtype=np.int64)

    def find(self, name: str) -> int | None:
        """Return the index of a raw id or title, as `index_of` finds it, or None."""
        index = self._index_by_id.get(name)
        if index is not None:
            return index
        title = normalise_title(name)
        for key in (title, title.casefold()):
            if key in self._index_by_title:
                return self._index_by_title[key]
        return None

    def _find(self, name: str) -> int:
        index = self.find(name)
        if index is not None:
            return index
        title = normalise_title(name)
        near = difflib.get_close_matches(title.casefold(), self._index_by_title, n=6, cutoff=0.5)
        shown = list(dict.fromkeys(repr(self.titles[self._index_by_title[key]]) for key in near))[:3]
        hint = f" Nearest titles: {', '.join(shown)}." if shown else ""
        example = self.titles[0] or self.raw_ids[0] if len(self) else "none"
        raise DataError(
            f"{name!r} is no id and no title of the {len(self)} items.{hint} Allowed: e.g. {example!r}."
        )

    def title_report(self) -> dict[str, int]:
        """Count what is wrong with the titles.

        Returns
        -------
        dict
            ``items``; ``missing`` (items without title); ``duplicated_titles`` (titles that several items
            share) and ``items_with_duplicated_title`` (those items). The ids stay distinct.
        """
        counts = self.frame.filter(pl.col("title") != "").group_by("title").len().filter(pl.col("len") > 1)
        return {
            "items": len(self),
            "missing": int((self.frame["title"] == "").sum()),
            "duplicated_titles": counts.height,
            "items_with_duplicated_title": int(counts["len"].sum()),
        }


def _usable(title: str) -> str:
    """Return the title, or nothing where the publisher wrote a word for "no title"."""
    return "" if title.casefold() in _NO_TITLE else title
