"""Where logs and titles come from: one reader per format, each returning a checked log and its items.

`SOURCES` maps the name of ``recdistill data <name>`` to its reader. The authors' window files are split
already and have a reader of their own, `read_windows`, that returns the dataset.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import polars as pl

from recdistill.data.interactions import Interactions
from recdistill.data.sources.amazon import read_amazon
from recdistill.data.sources.download import ARCHIVES, cache_folder, download
from recdistill.data.sources.frame import read_files, read_frames
from recdistill.data.sources.movielens import (
    read_movielens_100k,
    read_movielens_csv,
    read_movielens_dat,
    read_movietweetings,
)
from recdistill.data.sources.recbole import read_recbole
from recdistill.data.sources.sequences_file import read_sequences
from recdistill.data.sources.windows import read_windows

Reader = Callable[..., tuple[Interactions, pl.DataFrame]]

SOURCES: dict[str, Reader] = {
    "movielens-100k": read_movielens_100k,
    "movielens-1m": partial(read_movielens_dat, size="1m"),
    "movielens-10m": partial(read_movielens_dat, size="10m"),
    "movielens-20m": partial(read_movielens_csv, size="20m"),
    "movielens-25m": partial(read_movielens_csv, size="25m"),
    "movielens-32m": partial(read_movielens_csv, size="32m"),
    "movielens-latest-small": partial(read_movielens_csv, size="latest-small"),
    "movietweetings": read_movietweetings,
    "amazon-2014": partial(read_amazon, release="2014"),
    "amazon-2018": partial(read_amazon, release="2018"),
    "amazon-2023": partial(read_amazon, release="2023"),
    "recbole": read_recbole,
    "csv": read_files,
    "sequences": read_sequences,
}

__all__ = [
    "ARCHIVES",
    "SOURCES",
    "Reader",
    "cache_folder",
    "download",
    "read_amazon",
    "read_files",
    "read_frames",
    "read_movielens_100k",
    "read_movielens_csv",
    "read_movielens_dat",
    "read_movietweetings",
    "read_recbole",
    "read_sequences",
    "read_windows",
]
