"""Amazon reviews 2014, 2018 and 2023: reviews and metadata, one record a line, gzip.

2014  ``reviews_<Category>_5.json.gz`` + ``meta_<Category>.json.gz`` (metadata are Python literals, not JSON)
2018  ``<Category>_5.json.gz`` + ``meta_<Category>.json.gz``
2023  ``<Category>.jsonl.gz`` + ``meta_<Category>.jsonl.gz`` (items are ``parent_asin``, time in milliseconds)

McAuley et al., SIGIR 2015 (2014); Ni, Li, McAuley, EMNLP 2019 (2018); Hou et al., arXiv 2403.03952 (2023).
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from recdistill.data.files import need_folder, open_binary, sources_of
from recdistill.data.interactions import Interactions
from recdistill.errors import DataError

LONGEST_LINE: Final = 1 << 22  # 4 MiB: no record is longer, and a parser is never fed more
LONGEST_TEXT: Final = 4000  # characters kept of a description
_BLOCK: Final = 1 << 24


@dataclass(frozen=True)
class Release:
    """Names in one release of the corpus.

    Attributes
    ----------
    reviews
        File name patterns, the smaller 5-core first; ``*`` is the category.
    meta
        File name pattern of the metadata.
    user, item, time
        Keys of a review.
    scale
        Units of the time in a second.
    literal
        Whether the metadata are Python literals.
    page
        Where the files come from.
    """

    reviews: tuple[str, ...]
    meta: str
    user: str
    item: str
    time: str
    scale: int
    literal: bool
    page: str


RELEASES: Final[dict[str, Release]] = {
    "2014": Release(
        ("reviews_*_5.json", "reviews_*.json"),
        "meta_*.json",
        "reviewerID",
        "asin",
        "unixReviewTime",
        1,
        True,
        "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    ),
    "2018": Release(
        ("*_5.json", "*.json"),
        "meta_*.json",
        "reviewerID",
        "asin",
        "unixReviewTime",
        1,
        False,
        "https://nijianmo.github.io/amazon/",
    ),
    "2023": Release(
        ("*.jsonl",),
        "meta_*.jsonl",
        "user_id",
        "parent_asin",
        "timestamp",
        1000,
        False,
        "https://amazon-reviews-2023.github.io/",
    ),
}


def read_amazon(
    source: Path | str, *, release: str, category: str | None = None
) -> tuple[Interactions, pl.DataFrame]:
    """Read one category.

    Parameters
    ----------
    source
        Folder with the reviews and the metadata, as published (``.gz``, or unpacked, or ``.zst``).
    release
        ``"2014"``, ``"2018"`` or ``"2023"``.
    category
        As in the file names, e.g. ``Toys_and_Games``; needed where the folder holds several.

    Returns
    -------
    tuple
        `Interactions` with ratings, and items with ``title``, ``categories``, ``brand``, ``description``.

    Raises
    ------
    DataError
        A file is missing, several fit, or a line cannot be read.
    """
    names = RELEASES[release]
    folder = need_folder(source)
    reviews = _find_reviews(folder, names, category)
    found = category or _category(reviews, names)
    meta = _only(folder, [names.meta.replace("*", found)], names, f"metadata of {found}")
    keys = {
        names.user: pl.String,
        names.item: pl.String,
        names.time: pl.Int64,
        "overall": pl.Float32,
        "rating": pl.Float32,
    }
    table = pl.concat(_json_table(block, keys, reviews.name, line) for line, block in _blocks(reviews))
    table = table.select(
        user_id=names.user,
        item_id=names.item,
        timestamp=names.time,
        rating=pl.coalesce("overall", "rating"),
    )
    if names.scale > 1:  # sorted in the finer unit first, so that cutting it off loses no order
        table = table.sort("timestamp", maintain_order=True).with_columns(pl.col("timestamp") // names.scale)
    log = Interactions.from_frame(
        table,
        provenance={"format": f"amazon-{release}", "category": found, "files": sources_of([reviews, meta])},
        origin=reviews.name,
        first_line=1 if names.scale == 1 else 0,
    )
    return log, read_metadata(meta, set(table["item_id"].unique()), literal=names.literal, item=names.item)


def read_metadata(path: Path, wanted: set[str], *, literal: bool, item: str = "asin") -> pl.DataFrame:
    """Read the metadata of the wanted items: ``item_id, title, categories, brand, description``.

    Parameters
    ----------
    path
        One record a line.
    wanted
        Raw ids; the records of others are passed over.
    literal
        Whether the records are Python literals (2014); read by ``ast.literal_eval``, which evaluates nothing.
    item
        Key of the id.
    """
    rows: dict[str, tuple[str, ...]] = {}
    key = re.compile(rb"""["']%b["']\s*:\s*["']([^"']{1,99})["']""" % item.encode())
    for number, line in _lines(path):
        seen = key.search(line)
        if seen and seen[1].decode("utf-8", "replace") not in wanted:
            continue  # parsing is what costs: most records are of other items
        record = _literal(line, path.name, number) if literal else _json(line, path.name, number)
        name = str(record.get(item, record.get("asin", "")))
        if name in wanted and name not in rows:
            brand = record.get("brand") or record.get("store")
            fields = (record.get("title"), record.get("categories") or record.get("category"), brand)
            rows[name] = (name, *map(_flat, fields), _flat(record.get("description"), " ")[:LONGEST_TEXT])
    schema = ("item_id", "title", "categories", "brand", "description")
    table = pl.DataFrame(list(rows.values()), schema=dict.fromkeys(schema, pl.String), orient="row")
    # scripts instead of titles: the publisher's own notebook drops them by this word
    broken = pl.col("title").str.contains("getTime", literal=True)
    return table.with_columns(title=pl.when(broken).then(pl.lit("")).otherwise("title"))


def _flat(value: Any, separator: str = " > ") -> str:
    """Return a text; of a list its parts, of a list of lists (2014 categories) the first one's."""
    if isinstance(value, (list, tuple)):
        parts = value[0] if value and isinstance(value[0], (list, tuple)) else value
        return separator.join(" ".join(str(part).split()) for part in parts)
    return "" if value is None else " ".join(str(value).split())


def _find_reviews(folder: Path, names: Release, category: str | None) -> Path:
    for pattern in names.reviews:
        chosen = pattern.replace("*", category or "*")
        if _matching(folder, [chosen]):
            return _only(folder, [chosen], names, "reviews")
    return _only(folder, [names.reviews[0].replace("*", category or "*")], names, "reviews")


def _matching(folder: Path, patterns: list[str]) -> list[Path]:
    found = {
        path for pattern in patterns for end in ("", ".gz", ".zst") for path in folder.glob(pattern + end)
    }
    if not any(pattern.startswith("meta_") for pattern in patterns):
        found = {path for path in found if not path.name.startswith("meta_")}
    return sorted(found)


def _only(folder: Path, patterns: list[str], names: Release, what: str) -> Path:
    found = _matching(folder, patterns)
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(path.name for path in found)
        raise DataError(f"{folder} holds several files of {what}: {listed}. Choose one: --category NAME.")
    raise DataError(
        f"{folder} holds no {patterns[0]}.gz ({what}). Get it from {names.page} and put it there; the "
        "category is the * in the name."
    )


def _category(reviews: Path, names: Release) -> str:
    name = reviews.name.split(".json", 1)[0]
    return name.removeprefix("reviews_").removesuffix("_5") if names.scale == 1 else name


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number of its first line, whole lines of about 16 MiB)."""
    with open_binary(path) as file:
        line, rest = 1, b""
        while block := file.read(_BLOCK):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            if len(rest) > LONGEST_LINE:
                _too_long(path.name, line + block.count(b"\n"))
            if cut:
                yield line, block[:cut]
                line += block.count(b"\n", 0, cut)
        if rest.strip():
            yield line, rest


def _json_table(block: bytes, keys: dict[str, Any], origin: str, first_line: int) -> pl.DataFrame:
    """Parse JSON lines; where that fails, find the line that is to blame."""
    try:
        return pl.read_ndjson(io.BytesIO(block), schema=keys)
    except pl.exceptions.PolarsError as error:
        for number, line in enumerate(block.splitlines(), first_line):
            if line.strip():
                _json(line, origin, number)
        raise DataError(
            f"{origin}, after line {first_line}: {str(error).splitlines()[0]}. Mend the file."
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open_binary(path) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                _too_long(path.name, number)
            if line.strip():
                yield number, line


def _too_long(origin: str, number: int) -> None:
    raise DataError(f"{origin}, line {number}: longer than {LONGEST_LINE} bytes. Allowed: one record a line.")


def _json(line: bytes, origin: str, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(origin, number, "JSON", error) from None
    return _record(record, origin, number)


def _literal(line: bytes, origin: str, number: int) -> dict[str, Any]:
    try:
        record = ast.literal_eval(line.decode("utf-8").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise _unreadable(origin, number, "Python", error) from None
    return _record(record, origin, number)


def _record(record: Any, origin: str, number: int) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise _unreadable(origin, number, "record", TypeError(f"a {type(record).__name__}"))
    return record


def _unreadable(origin: str, number: int, kind: str, error: BaseException) -> DataError:
    return DataError(
        f"{origin}, line {number}: no {kind} dictionary ({type(error).__name__}: {str(error)[:80]}). "
        "Allowed: one record in braces a line. Mend or remove the line, or get the file anew."
    )
