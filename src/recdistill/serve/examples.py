"""Histories whose teacher list is stored, so that the page can show what the student learned from.

A language model cannot be asked in a millisecond; what it said of some rows of the dataset is written into one
JSON file (``recdistill knowledge examples``), with raw ids: ``{"dataset_fingerprint": ..., "teacher": ...,
"rows": [{"history": [...], "target": ..., "teacher": [...]}]}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recdistill.errors import RunError
from recdistill.runs import read_json, require_fingerprint


class Examples:
    """Stored lists of a teacher.

    Parameters
    ----------
    rows
        Objects with ``history`` and ``teacher`` (raw ids) and ``target`` (a raw id or None).
    """

    def __init__(self, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.rows = list(rows)
        self._lists = {tuple(row["history"]): row["teacher"] for row in self.rows}

    @classmethod
    def load(cls, path: Path, fingerprints: Iterable[str]) -> Examples:
        """Read a file and check that it belongs to a dataset that a served model was trained on.

        Raises
        ------
        RunError
            The file is missing or not as `Examples` describes it.
        FingerprintError
            It is of another dataset.
        """
        content = read_json(path)
        rows = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise RunError(
                f"{path} holds no stored lists. Write it anew: recdistill knowledge examples K --dataset D --out {path}"
            )
        known = list(fingerprints)
        found = str(content.get("dataset_fingerprint"))
        if found not in known:
            require_fingerprint(found, known[0], path)
        return cls(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def teacher(self, history: Sequence[str]) -> list[str] | None:
        """Return the teacher's list after exactly this history of raw ids, or None."""
        return self._lists.get(tuple(history))


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("target"), str | None):
        return False
    lists = [row.get("history"), row.get("teacher")]
    return all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists)
