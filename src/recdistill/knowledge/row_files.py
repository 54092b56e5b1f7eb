"""Files that hold row ids: parquet with a column ``row_id``, or a JSON list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.errors import ConfigError, DataError
from recdistill.runs import atomic_file

Ints = npt.NDArray[np.int64]


def write_row_ids(path: Path | str, row_ids: npt.ArrayLike) -> None:
    """Write row ids, atomically; the ending of the name says in which format.

    Raises
    ------
    ConfigError
        The name ends in neither ``.parquet`` nor ``.json``.
    """
    path, ids = Path(path), np.asarray(row_ids, np.int64)
    _check_ending(path)
    with atomic_file(path) as temporary:
        if path.suffix == ".json":
            temporary.write_text(json.dumps(ids.tolist()) + "\n", encoding="utf-8")
        else:
            pl.DataFrame({"row_id": ids}).write_parquet(temporary)


def read_row_ids(path: Path | str) -> Ints:
    """Return the ``(N,)`` row ids of a file, ascending, each once.

    Raises
    ------
    ConfigError
        The name ends in neither ``.parquet`` nor ``.json``.
    DataError
        The file cannot be read, or holds no row ids.
    """
    path = Path(path)
    _check_ending(path)
    try:
        if path.suffix == ".json":
            values = pl.Series("row_id", json.loads(path.read_text(encoding="utf-8")), dtype=pl.Int64)
        else:
            values = pl.read_parquet(path, columns=["row_id"])["row_id"].cast(pl.Int64)
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read ({reason}). Allowed: parquet with a column row_id, or a JSON list of whole "
            "numbers. Write one with: recdistill knowledge select --out rows.parquet"
        ) from None
    return np.unique(values.drop_nulls().to_numpy())


def _check_ending(path: Path) -> None:
    if path.suffix not in (".parquet", ".json"):
        raise ConfigError(
            f"{path} is no file of row ids by its name. Allowed: a name that ends in .parquet or .json. "
            "Write one with: recdistill knowledge select --out rows.parquet"
        )
