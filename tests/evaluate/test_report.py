from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from recdistill.errors import ConfigError, DataError, MissingExtraError, RunError
from recdistill.evaluate import Evaluation, comparison_report, holm
from recdistill.runs import write_manifest

ROWS, ITEMS = 400, 900
MASKS = {
    "target popularity": {"head": np.arange(ROWS) < 300, "tail": np.arange(ROWS) >= 300},
    "hop distance": {"1 hop": np.arange(ROWS) % 2 == 0, "never": np.zeros(ROWS, bool)},
}
KINDS = {"popularity": "baseline", "graph | teacher": "teacher", "plain": "student", "distilled": "distilled"}


def evaluation(name, worst, seed=None, **changes):
    ranks = np.random.default_rng(100 * worst + (seed or 0)).integers(0, worst, ROWS)
    facts = {"split": "test", "row_ids": np.arange(ROWS), "item_count": ITEMS, "filter_seen": True, **changes}
    return Evaluation(name=name, ranks=ranks, seed=seed, **facts)


def groups():
    return {
        "popularity": [evaluation("popularity", 600)],
        "graph | teacher": [evaluation("graph", 80)],
        "plain": [evaluation("plain", 200, seed) for seed in (0, 1, 2)],
        "distilled": [evaluation("distilled", 60, seed) for seed in (0, 1, 2)],
    }


def make(**changes):
    options = {"reference": "plain", "dataset_name": "toy [shop]", "slices": MASKS, "kinds": KINDS, **changes}
    return comparison_report(
        changes.pop("groups", groups()),
        permutations=500,
        resamples=200,
        **{key: value for key, value in options.items() if key != "groups"},
    )


@pytest.fixture(scope="module")
def report():
    return make()


def test_numbers_are_those_of_the_evaluations(report):
    line = {line.name: line for line in report.lines}["distilled"]
    each = [one.metrics()["ndcg@20"] for one in groups()["distilled"]]
    assert line.metrics["ndcg@20"] == pytest.approx(np.mean(each))
    assert line.spread["ndcg@20"] == pytest.approx(np.std(each, ddof=1))
    assert line.seeds == (0, 1, 2)
    assert line.interval[0] < line.metrics["ndcg@20"] < line.interval[1]
    assert line.comparison is not None
    assert line.comparison.difference > 0
    plain = next(line for line in report.lines if line.name == "plain")
    assert plain.comparison is None
    assert not next(line for line in report.lines if line.name == "popularity").spread


def test_holm_runs_over_each_table(report):
    compared = [line.comparison for line in report.lines if line.comparison]
    assert [one.p_holm for one in compared] == pytest.approx(holm([one.p for one in compared]))
    head_and_tail = report.slices[0]
    cells = [one for found in head_and_tail.comparisons.values() for one in found.values()]
    assert len(cells) == 6
    assert [one.p_holm for one in cells] == pytest.approx(holm([one.p for one in cells]))


def test_slices_average_the_chosen_rows(report):
    table = report.slices[0]
    assert table.rows == {"head": 300, "tail": 100}
    tail = groups()["popularity"][0].per_row("ndcg@20")[300:].mean()
    assert table.values["tail"]["popularity"] == pytest.approx(tail)
    assert table.comparisons["tail"]["popularity"].n == 100
    assert report.slices[1].rows == {"1 hop": 200}  # the empty slice is left out


def test_every_table_names_what_was_asked(report):
    text = report.to_markdown()
    tables = text.split("\n## ")[1:]
    assert len(tables) == 1 + 3 + 2
    for table in tables:
        assert "toy [shop], test, 400 rows, 900 items, seen items filtered" in table
        assert "seeds 0, 1, 2" in table
    assert "Holm over 3 comparisons" in tables[0]
    assert "Holm over 6 comparisons" in tables[4]
    assert "k = 20" in tables[0]


def test_markdown_tables_are_rectangular(report):
    for table in report.to_markdown().split("\n## ")[1:]:
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len(lines) == 2 + 4
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert any("graph \\| teacher" in line for line in lines)


def test_terminal_shows_every_model_and_no_markup_is_read(report):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report.to_rich())
    text = console.export_text()
    for name in groups():
        assert name in text
    assert "toy [shop]" in text
    assert "▲" in text


def test_json_holds_everything(report):
    found = json.loads(report.to_json())
    assert found["rows"] == ROWS
    assert found["reference"] == "plain"
    assert set(found["lines"][0]["metrics"]) == {
        f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in (1, 5, 10, 20, 50)
    }
    assert found["lines"][3]["comparison"]["p_holm"] < 0.05
    assert found["slices"][0]["comparisons"]["head"]["distilled"]["n"] == 300


def test_the_metrics_cut_off_is_always_shown():
    found = make(ks=(1, 5), metric="hr@7", slices=None)
    assert found.ks == (1, 5, 7)
    assert "HR@7" in found.to_markdown()


def test_picture_is_drawn_and_reproducible(report, tmp_path):
    for name in ("a.png", "b.svg", "c.svg"):
        report.plot(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_size > 20_000
    assert (tmp_path / "b.svg").read_bytes() == (tmp_path / "c.svg").read_bytes()


def test_names_with_dollar_signs_are_no_formulas(tmp_path):
    found = comparison_report(
        {"$x_": [evaluation("a", 60)], "$\\y$ [b]": [evaluation("b", 90)]},
        reference="$x_",
        dataset_name="$",
        permutations=20,
        resamples=20,
    )
    found.plot(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 5_000


def test_a_single_model_makes_a_report(tmp_path):
    found = comparison_report(
        {"alone": [evaluation("alone", 60)]}, reference="alone", dataset_name="d", resamples=20
    )
    assert "reference" in found.to_markdown()
    found.plot(tmp_path / "one.png")


def test_save_replaces_reports_only(report, tmp_path):
    report.save(tmp_path / "report")
    report.save(tmp_path / "report")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["comparison.png", "comparison.svg", "manifest.json", "report.json", "report.md"]
    assert "![ndcg@20](comparison.png)" in (tmp_path / "report" / "report.md").read_text()
    (tmp_path / "data").mkdir()
    write_manifest(tmp_path / "data", "dataset", {})
    with pytest.raises(RunError, match="'report' folder is needed"):
        report.save(tmp_path / "data")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not written by recdistill"):
        report.save(tmp_path / "own")


def test_without_matplotlib_the_tables_are_written(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"recdistill\[report\]"):
        report.plot(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report.save(tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "manifest.json",
        "report.json",
        "report.md",
    ]
    assert "comparison.png" not in (tmp_path / "report" / "report.md").read_text()


def test_different_protocols_are_never_in_one_report():
    mixed = {**groups(), "kept": [evaluation("kept", 50, filter_seen=False)]}
    with pytest.raises(ConfigError, match="seen items are"):
        make(groups=mixed)


def test_wrong_input_is_refused():
    with pytest.raises(ConfigError, match="unknown reference 'plane'"):
        make(reference="plane")
    with pytest.raises(ConfigError, match="'empty' has no evaluation"):
        make(groups={**groups(), "empty": []})
    with pytest.raises(ConfigError, match="unknown kind"):
        make(kinds={"plain": "pupil"})
    with pytest.raises(ConfigError, match="unknown model"):
        make(kinds={"plan": "student"})
    with pytest.raises(DataError, match="mask of slice"):
        make(slices={"x": {"y": np.ones(3, bool)}})
