"""Search in titles: every word of the query must occur; the beginning of a title counts most, then popularity."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Titles looked at for one query; they are met in order of popularity, so the rest is the less popular.
MOST_HITS: Final = 2000
_BREAK: Final = "\n"


def fold_text(text: str) -> str:
    """Return a text in lower case and without accents, as it is compared.

    Examples
    --------
    >>> fold_text("Amélie  ")
    'amelie'
    """
    if not text.isascii():
        text = "".join(
            sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)
        )
    return " ".join(text.casefold().split())


class TitleSearch:
    """All titles in one text, the most popular first; a query walks through it with the fast search of ``str.find``.

    Parameters
    ----------
    titles
        I titles.
    popularity
        ``(I,)``; None: the order of the catalogue.
    """

    def __init__(self, titles: Sequence[str], popularity: npt.NDArray[Any] | None = None) -> None:
        count = len(titles)
        self._items = (
            np.arange(count)
            if popularity is None
            else np.argsort(-np.asarray(popularity, float), kind="stable")
        )
        folded = [fold_text(titles[row]) for row in self._items.tolist()]
        self._text = _BREAK + _BREAK.join(folded) + _BREAK
        self._starts = 1 + np.cumsum([0, *(len(title) + 1 for title in folded[:-1])], dtype=np.int64)

    def find(self, query: str, limit: int) -> Ints:
        """Return up to `limit` items whose titles hold all words of the query, the best first."""
        words = fold_text(query).split()
        if not words or not len(self._items):
            return np.zeros(0, dtype=np.int64)
        whole = " ".join(words)
        places = self._rows_with(_BREAK + whole) + self._rows_with(max(words, key=len))
        hits = []
        for row in dict.fromkeys(places):
            start = int(self._starts[row])
            title = self._text[start : self._text.index(_BREAK, start)]
            if all(word in title for word in words):
                hits.append((_closeness(title, whole, words), row))
        hits.sort()
        return self._items[np.array([row for _, row in hits[:limit]], dtype=np.int64)]

    def _rows_with(self, part: str) -> list[int]:
        """Return the first titles that hold a text, as rows of the sorted titles."""
        rows: list[int] = []
        place = self._text.find(part)
        while place >= 0 and len(rows) < MOST_HITS:
            row = int(np.searchsorted(self._starts, place + 1 if part[0] == _BREAK else place, "right")) - 1
            rows.append(row)
            place = (
                self._text.find(part, self._text.index(_BREAK, place + 1))
                if part[0] != _BREAK
                else self._text.find(part, place + 1)
            )
        return rows


def _closeness(title: str, whole: str, words: list[str]) -> int:
    """0: the title itself; 1: its beginning; 2: whole words; 3: beginnings of words; 4: within words."""
    if title == whole:
        return 0
    if title.startswith(whole):
        return 1
    if all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", title) for word in words):
        return 2
    return 3 if all(re.search(rf"(?<!\w){re.escape(word)}", title) for word in words) else 4
