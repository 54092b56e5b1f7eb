"""MovieLens in all its formats, and MovieTweetings, which copies one of them.

Harper, Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015. https://grouplens.org/datasets/movielens/
Dooms, De Pessemier, Martens: MovieTweetings. CrowdRec at RecSys 2013. https://github.com/sidooms/MovieTweetings
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recdistill.data.files import (
    find_file,
    need_file,
    need_folder,
    read_table,
    read_text,
    sources_of,
    split_lines,
)
from recdistill.data.interactions import Interactions
from recdistill.data.sources.sequences_file import explode_sequences
from recdistill.errors import DataError

Source = tuple[Interactions, pl.DataFrame]

#: u.genre of MovieLens 100K: the order of the 19 flags in u.item.
_GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
_SITE = "https://grouplens.org/datasets/movielens/"


def read_movielens_100k(source: Path | str) -> Source:
    """Read ``u.data`` (tab) and ``u.item`` (``|``, Latin-1); the genre flags become one text column."""
    folder = need_folder(source)
    ratings = need_file(folder, "u.data", where_from=_SITE + "100k/")
    movies = need_file(folder, "u.item", where_from=_SITE + "100k/")
    names = ("item_id", "title", "date", "video_date", "url", *_GENRES_100K)
    table = split_lines(read_text(movies), "|", names, movies.name)
    genres = [
        ", ".join(g for g, flag in zip(_GENRES_100K, row, strict=True) if flag == "1")
        for row in table[:, 5:].rows()
    ]
    items = table.select("item_id", "title", genres=pl.Series(genres))
    return _log(ratings, "movielens-100k", movies, separator="\t"), items


def read_movielens_dat(source: Path | str, *, size: str) -> Source:
    """Read ``ratings.dat`` and ``movies.dat`` of MovieLens 1M or 10M (``::``; Latin-1 and UTF-8).

    Where ``ratings.dat`` is missing, ``sequences.tsv`` (movie ids in time order, no timestamps) stands in.
    """
    folder = need_folder(source)
    movies = need_file(folder, "movies.dat", where_from=f"{_SITE}{size}/")
    items = _movies(movies)
    sequences = find_file(folder, "sequences.tsv")
    if find_file(folder, "ratings.dat") is None and sequences is not None:
        events = explode_sequences(read_table(sequences, quoted=False), sequences.name)
        provenance = {"format": f"movielens-{size}, order only", "files": sources_of([sequences, movies])}
        numbers = events.with_columns(pl.all().cast(pl.Int32, strict=False))
        return Interactions.from_frame(numbers, provenance=provenance, origin=sequences.name), items
    ratings = need_file(folder, "ratings.dat", where_from=f"{_SITE}{size}/")
    return _log(ratings, f"movielens-{size}", movies, separator="::"), items


def read_movielens_csv(source: Path | str, *, size: str) -> Source:
    """Read ``ratings.csv`` and ``movies.csv`` of MovieLens 20M, 25M, 32M or latest-small."""
    folder = need_folder(source)
    page = _SITE + ("latest/" if "latest" in size else f"{size}/")
    ratings = need_file(folder, "ratings.csv", where_from=page)
    movies = need_file(folder, "movies.csv", where_from=page)
    items = read_table(movies).rename({"movieId": "item_id"})
    return _log(ratings, f"movielens-{size}", movies, separator=","), _with_genres(items)


def read_movietweetings(source: Path | str) -> Source:
    """Read ``ratings.dat`` and ``movies.dat`` (``::``, UTF-8); IMDb ids keep their leading zeros."""
    folder = need_folder(source)
    page = "https://github.com/sidooms/MovieTweetings (folder latest)"
    ratings = need_file(folder, "ratings.dat", where_from=page)
    movies = need_file(folder, "movies.dat", where_from=page)
    return _log(ratings, "movietweetings", movies, separator="::", item_type=pl.String), _movies(movies)


def _movies(path: Path) -> pl.DataFrame:
    return _with_genres(split_lines(read_text(path), "::", ("item_id", "title", "genres"), path.name))


def _with_genres(items: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("genres").fill_null("").str.replace("(no genres listed)", "", literal=True)
    return items.with_columns(genres.str.replace_all("|", ", ", literal=True))


def _log(
    ratings: Path, kind: str, movies: Path, *, separator: str, item_type: Any = pl.Int32
) -> Interactions:
    """Read user, item, rating, time: as numbers in one go, or as text if a field resists, to name the row."""
    types = {"user_id": pl.Int32, "item_id": item_type, "rating": pl.Float32, "timestamp": pl.Int64}
    provenance = {"format": kind, "files": sources_of([ratings, movies])}
    first_line = 2 if separator == "," else 1
    read = _reader(ratings, separator)
    try:
        table = read(types)
    except (DataError, pl.exceptions.PolarsError):
        table = read(dict.fromkeys(types, pl.String))
        for name in ("user_id", "item_id"):
            _require_numbers(table[name], types[name], ratings.name, first_line)
    return Interactions.from_frame(table, provenance=provenance, origin=ratings.name, first_line=first_line)


def _reader(path: Path, separator: str) -> Callable[[Mapping[str, Any]], pl.DataFrame]:
    """Return a function from column types to the table; ``a::b`` is read as ``a``, nothing, ``b``."""

    def read(types: Mapping[str, Any]) -> pl.DataFrame:
        if separator == ",":
            theirs = dict(zip(("userId", "movieId", "rating", "timestamp"), types.items(), strict=True))
            table = read_table(path, schema={name: kind for name, (_, kind) in theirs.items()})
            return table.rename({name: ours for name, (ours, _) in theirs.items()}).select(list(types))
        schema: dict[str, Any] = dict(types)
        if separator == "::":
            schema = {}
            for place, (name, kind) in enumerate(types.items()):
                schema |= {f"empty_{place}": pl.String, name: kind} if place else {name: kind}
        table = read_table(path, separator=separator[0], header=False, schema=schema, quoted=False)
        return table.select(list(types))

    return read


def _require_numbers(column: pl.Series, kind: Any, origin: str, first_line: int) -> None:
    if kind == pl.String:
        return
    wrong = (column.cast(kind, strict=False).is_null() & column.is_not_null()).arg_true()
    if len(wrong):
        raise DataError(
            f"{origin}, line {wrong[0] + first_line}: {column.name} is {column[wrong[0]]!r}. Allowed: a "
            "whole number. Mend or remove the line."
        )
