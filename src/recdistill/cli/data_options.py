"""The options of ``recdistill data``: those of every source, written once, and those of a few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

#: One line a source; the readers are ``recdistill.data.SOURCES``, not imported before a command runs.
HELP: Final = {
    "movielens-100k": "MovieLens 100K (u.data, u.item).",
    "movielens-1m": "MovieLens 1M (ratings.dat or sequences.tsv).",
    "movielens-10m": "MovieLens 10M (ratings.dat, movies.dat).",
    "movielens-20m": "MovieLens 20M (ratings.csv, movies.csv).",
    "movielens-25m": "MovieLens 25M (ratings.csv, movies.csv).",
    "movielens-32m": "MovieLens 32M (ratings.csv, movies.csv).",
    "movielens-latest-small": "MovieLens latest-small (csv).",
    "movietweetings": "MovieTweetings (ratings.dat, movies.dat).",
    "amazon-2014": "Amazon reviews 2014 (reviews_*.json.gz).",
    "amazon-2018": "Amazon reviews 2018 (*_5.json.gz).",
    "amazon-2023": "Amazon reviews 2023 (*.jsonl.gz).",
    "recbole": "RecBole atomic files (*.inter, *.item).",
    "csv": "Your own csv, tsv or parquet files.",
    "sequences": "Sequences without timestamps (tsv).",
}

MORE: Final = {
    "movielens-1m": "Without ratings.dat, sequences.tsv (movie ids in time order) is read instead.",
    "movielens-10m": "As in the paper: --split global-time --only-full --all-items --sample-train 100000 "
    "--sample-valid 10000 --sample-test 10000.",
    "amazon-2014": "Needs reviews_CATEGORY_5.json.gz and meta_CATEGORY.json.gz in --source.",
    "amazon-2018": "Needs CATEGORY_5.json.gz and meta_CATEGORY.json.gz in --source.",
    "amazon-2023": "Needs CATEGORY.jsonl.gz and meta_CATEGORY.jsonl.gz in --source.",
    "csv": "Reads interactions.csv (user_id, item_id, maybe timestamp and rating) and items.csv (item_id, "
    "title, any others), or .tsv or .parquet; --source may be the log itself.",
    "sequences": "Reads sequences.tsv (user_id and item ids in time order, separated by blanks) and "
    "items.tsv.",
}

Text = str | None
_Columns = "Name of the column in your file."


def shared(
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the files (csv, recbole, sequences: or the file). "
            "Without it, MovieLens is downloaded."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Dataset folder to write.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read, and explain the first bad row.")] = False,
    name: Annotated[
        Text, typer.Option(help="Name of the dataset in tables.", show_default="the source")
    ] = None,
    split: Annotated[
        Literal["leave-one-out", "global-time"], typer.Option(help="How rows are split.")
    ] = "leave-one-out",
    window: Annotated[int, typer.Option(min=1, help="global-time: length of the windows.")] = 10,
    only_full: Annotated[
        bool, typer.Option("--only-full", help="global-time: full windows only (MovieLens rule).")
    ] = False,
    tie_policy: Annotated[
        Literal["index", "push_to_later"], typer.Option(help="global-time: rows of one second at a border.")
    ] = "index",
    min_rating: Annotated[float | None, typer.Option(help="Drop lower ratings.")] = None,
    drop_untitled: Annotated[
        bool, typer.Option("--drop-untitled", help="Drop items without a title.")
    ] = False,
    k_core: Annotated[
        int, typer.Option(min=0, help="Keep users and items with at least k events, repeatedly.")
    ] = 0,
    min_length: Annotated[int, typer.Option(min=0, help="Keep users with at least so many events.")] = 0,
    all_items: Annotated[
        bool, typer.Option("--all-items", help="Number items that nobody met, too.")
    ] = False,
    sample_train: Annotated[
        int | None, typer.Option(min=1, help="Keep so many train rows, by chance.")
    ] = None,
    sample_valid: Annotated[int | None, typer.Option(min=1, help="The same for valid rows.")] = None,
    sample_test: Annotated[int | None, typer.Option(min=1, help="The same for test rows.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset in --out.")] = False,
) -> None:
    """The options of every source."""


def _category(
    category: Annotated[
        Text, typer.Option(help="E.g. Toys_and_Games; needed if the folder holds several.")
    ] = None,
) -> None:
    """The option of Amazon."""


def _columns(
    user_column: Annotated[str, typer.Option(help=_Columns)] = "user_id",
    item_column: Annotated[str, typer.Option(help=_Columns)] = "item_id",
    timestamp_column: Annotated[
        Text, typer.Option(help=_Columns, show_default="timestamp, if there is one")
    ] = None,
    rating_column: Annotated[
        Text, typer.Option(help=_Columns, show_default="rating, if there is one")
    ] = None,
    title_column: Annotated[Text, typer.Option(help="Name of the title column of the items.")] = None,
) -> None:
    """Names of columns."""


def _items(
    items: Annotated[Path | None, typer.Option(help="Table of items: item_id, title, any others.")] = None,
) -> None:
    """The item table."""


def _separator(
    separator: Annotated[
        Text, typer.Option(help="Between fields.", show_default="comma; tab in .tsv")
    ] = None,
) -> None:
    """Of the csv file."""


EXTRA: dict[str, list[Callable[..., None]]] = {
    "amazon-2014": [_category],
    "amazon-2018": [_category],
    "amazon-2023": [_category],
    "recbole": [_columns],
    "csv": [_items, _columns, _separator],
    "sequences": [_items],
}
