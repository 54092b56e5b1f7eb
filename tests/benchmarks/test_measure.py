"""The measuring itself: order, medians, ratios, tables, a fresh process's answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import measure
import report
import synthetic


def test_interleave_runs_sides_in_turn_and_keeps_the_repeats() -> None:
    calls: list[str] = []
    threads = torch.get_num_threads()
    sides = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    timings = measure.interleave(sides, repeats=3, warmup=1)
    assert sorted(calls[2 * k : 2 * k + 2] for k in range(4)) == [
        ["a", "b"],
        ["a", "b"],
        ["b", "a"],
        ["b", "a"],
    ]
    assert all(len(timing.wall) == len(timing.cpu) == 3 for timing in timings.values())
    assert torch.get_num_threads() == threads


def test_summary_is_minimum_and_median_in_milliseconds() -> None:
    summary = measure.Timing(wall=[0.3, 0.1, 0.2], cpu=[0.5, 0.4, 0.9]).summary
    assert summary == pytest.approx(
        {"wall_min_ms": 100, "wall_median_ms": 200, "cpu_min_ms": 400, "cpu_median_ms": 500}
    )


def test_ratio_is_theirs_over_ours() -> None:
    theirs = {"cpu_1_thread_ms": 90.0, "wall_min_ms": 40.0}
    ours = {"cpu_1_thread_ms": 3.0, "wall_min_ms": 2.0}
    assert report.ratio(theirs, ours) == {"cpu_1_thread": 30.0, "wall": 20.0}


def test_table_is_markdown() -> None:
    text = report.table(("a", "b", "c"), [(1.23456, None, 12000), ("x", True, 1234.5)])
    assert text.splitlines() == [
        "| a | b | c |",
        "| --- | --- | --- |",
        "| 1.23 | – | 12,000 |",
        "| x | yes | 1,234 |",
    ]


def test_save_writes_facts_beside_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.save("demo", 1, tmp_path, {"ratio": 2.0}, "text")
    saved = json.loads((tmp_path / "demo.json").read_text())
    assert saved["ratio"] == 2.0
    assert saved["machine"]["matmul"]["float32_1_threads_gflops"] > 0
    assert "### demo" in capsys.readouterr().out


def test_subprocess_answers_with_its_last_line_and_an_error_says_why(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("print('noise'); print('{\"value\": 3}')")
    assert measure.in_subprocess([script]) == {"value": 3}
    script.write_text("raise SystemExit('the reason')")
    with pytest.raises(RuntimeError, match="the reason"):
        measure.in_subprocess([script])


def test_synthetic_windows_and_teacher_have_the_shapes_they_promise() -> None:
    dataset = synthetic.windows(50, 40, length=6)
    rows = dataset.rows("train")
    assert len(rows) == 50
    lengths = dataset.history_lengths(rows)
    assert lengths.min() >= 3
    assert lengths.max() <= 6
    knowledge = synthetic.teacher(dataset, size=8, listed=10)
    assert knowledge.ranking is not None
    assert knowledge.ranking_distance is not None
    assert all(len(set(row)) == 10 for row in knowledge.ranking.tolist())
    assert knowledge.ranking.min() >= 0
    assert knowledge.ranking.max() < 40
    assert (np.diff(knowledge.ranking_distance, axis=1) >= 0).all()


def test_synthetic_users_supervise_every_event_but_the_first() -> None:
    dataset = synthetic.users(20, 30, mean=40, longest=100)
    assert len(dataset.row_ids) == len(dataset.events) - 20
    assert dataset.history_lengths(dataset.rows("train")).min() == 1


def test_authors_tables_hold_the_same_rows() -> None:
    dataset = synthetic.windows(30, 40, length=6)
    tables = synthetic.authors_tables(dataset, synthetic.teacher(dataset, size=8), 6)
    rows = dataset.rows("train")
    padded = np.array(tables.frame["seq"].to_list())
    np.testing.assert_array_equal(np.where(padded == 40, -1, padded), dataset.histories(rows, 6))
    np.testing.assert_array_equal(tables.frame["next"], dataset.targets(rows))
