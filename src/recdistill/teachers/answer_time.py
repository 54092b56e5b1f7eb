"""How long a teacher took to answer, over all the runs that filled one knowledge folder.

It stays outside the manifest: knowledge is the same however often it was interrupted, the time is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from recdistill.runs import read_json, write_json

ANSWER_TIME: Final = "answer_time.json"


@contextmanager
def clocked(folder: Path | str, rows: int) -> Iterator[None]:
    """Add the wall time of a block, in which `rows` rows were answered, to what `folder` holds.

    A block that raises adds nothing: how many of its rows were answered is not known.
    """
    begun = time.perf_counter()
    yield
    seconds = time.perf_counter() - begun
    path = Path(folder) / ANSWER_TIME
    before = read_json(path) if path.is_file() else {"rows": 0, "seconds": 0.0}
    if rows:
        write_json(path, {"rows": before["rows"] + rows, "seconds": before["seconds"] + seconds})


def seconds_per_row(folder: Path | str) -> float | None:
    """Return the mean wall time of one answer, or None where it was not kept."""
    path = Path(folder) / ANSWER_TIME
    if not path.is_file():
        return None
    kept = read_json(path)
    return float(kept["seconds"]) / int(kept["rows"])
