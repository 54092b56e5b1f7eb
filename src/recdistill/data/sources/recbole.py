"""RecBole's atomic files: tab-separated, with the type of each column in the first line.

Zhao et al.: RecBole. CIKM 2021. https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from recdistill.data.files import need_folder, read_table, sources_of
from recdistill.data.interactions import Interactions
from recdistill.errors import DataError

_TYPES = ("token", "token_seq", "float", "float_seq")
_TITLES = ("title", "movie_title", "name", "item_name", "product_title", "title_name")


def read_recbole(
    source: Path | str, *, columns: Mapping[str, str] | None = None, title_column: str | None = None
) -> tuple[Interactions, pl.DataFrame]:
    """Read ``<name>.inter`` and, if there, ``<name>.item``.

    Parameters
    ----------
    source
        The ``.inter`` file, or the folder that holds one.
    columns
        Ours → theirs, e.g. ``{"item_id": "business_id"}``.
    title_column
        Of the ``.item`` file; by default the first of title, movie_title, name, ... that exists.

    Raises
    ------
    DataError
        A file is missing, or a first line lacks the types.
    """
    inter = _inter_file(Path(source).expanduser())
    item = next(
        (path for end in ("", ".gz", ".zst") if (path := Path(_stem(inter) + f".item{end}")).is_file()), None
    )
    renamed = dict(columns or {})
    log = Interactions.from_frame(
        _atomic(inter),
        columns=renamed,
        provenance={"format": "recbole", "files": sources_of([inter, item])},
        origin=inter.name,
        first_line=2,
    )
    if item is None:
        return log, pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    table = _atomic(item)
    ids = renamed.get("item_id", "item_id")
    title = title_column or next((name for name in _TITLES if name in table.columns), None)
    if ids not in table.columns or (title is not None and title not in table.columns):
        raise DataError(
            f"{item.name} has the columns {', '.join(table.columns)}. Needed: {ids} and a title. Name them "
            "with --item-column and --title-column."
        )
    table = table.rename({ids: "item_id"} | ({title: "title"} if title else {}))
    return log, table if title else table.with_columns(title=pl.lit(""))


def _stem(inter: Path) -> str:
    return str(inter).rsplit(".inter", 1)[0]


def _inter_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(need_folder(source).glob("*.inter*"))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found)
    raise DataError(
        f"{source} holds {f'several .inter files ({listed})' if found else 'no .inter file'}. Needed: one. "
        "Pass the file itself: --source DIR/name.inter."
    )


def _atomic(path: Path) -> pl.DataFrame:
    """Read one file; column names lose their types."""
    table = read_table(path, separator="\t", quoted=False)
    names = [name.rsplit(":", 1) for name in table.columns]
    wrong = [":".join(name) for name in names if len(name) != 2 or name[1] not in _TYPES]
    if wrong:
        raise DataError(
            f"{path.name}: column {wrong[0]!r} has no type. Allowed: name:type with one of "
            f"{', '.join(_TYPES)}, e.g. user_id:token. Mend the first line."
        )
    return table.rename({old: new[0] for old, new in zip(table.columns, names, strict=True)})
