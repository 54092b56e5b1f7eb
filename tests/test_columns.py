"""Columns come back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from recdistill.columns import TextColumn, columns_from, columns_of, write_columns
from recdistill.errors import RunError

TEXTS = ["", "Amélie", "日本", "a\nb", "\x00", "", "x" * 5000, "text:ends:"]


def read(path: Path) -> dict:
    with safe_open(path, "np") as file:
        names = json.loads(file.metadata()["columns"])
    return columns_from(load_file(path), names, str(path))


def test_round_trip_of_texts_and_numbers(tmp_path: Path) -> None:
    numbers = np.arange(8, dtype=np.int32)
    write_columns(tmp_path / "c", {"b": TEXTS, "a": numbers, "number:b": [*"01234567"]})
    found = read(tmp_path / "c")
    assert list(found) == ["b", "a", "number:b"]
    assert list(found["b"]) == TEXTS == [found["b"][row] for row in range(8)]
    assert found["b"][-2] == TEXTS[-2]
    assert found["a"].tolist() == numbers.tolist()
    with pytest.raises(IndexError):
        found["b"][8]


def test_no_rows_at_all(tmp_path: Path) -> None:
    write_columns(tmp_path / "c", {"a": []})
    assert list(read(tmp_path / "c")["a"]) == []


def test_a_frame(tmp_path: Path) -> None:
    frame = pl.DataFrame({"t": ["x", None], "n": [1, 2], "gaps": [1, None], "f": [0.5, 1.5]})
    write_columns(tmp_path / "c", columns_of(frame))
    found = read(tmp_path / "c")
    assert list(found) == ["t", "n", "f"]
    assert list(found["t"]) == ["x", ""]
    assert found["f"].tolist() == [0.5, 1.5]


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the same number in all"):
        write_columns(tmp_path / "c", {"a": ["x"], "b": ["x", "y"]})
    with pytest.raises(RunError, match="lacks the column 'a'"):
        columns_from({}, ["a"], "here")
    assert TextColumn.of(["\ud800"])[0] == "?"
