"""What marks an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from recdistill.runs import MANIFEST, read_json

EXPORT_KIND: Final = "recommender-export"
#: Grows when a reader of an earlier version would misread a folder.
FORMAT: Final = 1
#: Columns of an export's ``items.parquet`` that are no text of an item.
OWN_COLUMNS: Final = ("index", "popularity")


def is_export(folder: Path) -> bool:
    """Tell whether a folder's manifest says that `recdistill export` wrote it."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = read_json(folder / MANIFEST)
    return isinstance(manifest, dict) and manifest.get("kind") == EXPORT_KIND
