"""Runs of one name are told apart by their teacher and by the options that differ."""

from __future__ import annotations

from pathlib import Path

from recdistill.config import RunConfig
from recdistill.config.resolve import resolve
from recdistill.experiments.apart import settings_of, tell_apart
from recdistill.experiments.results import Result
from recdistill.runs import write_json


def config(*words: str, knowledge: str | None = None, strategy: str = "rd") -> RunConfig:
    given = {"dataset": "d", **({"knowledge": knowledge} if knowledge else {})}
    return resolve(given, strategy=strategy, file=None, words=words)


def result(name: str, made: RunConfig | None = None) -> Result:
    return Result(name, "distilled", [], settings_of(made) if made else {})


def test_the_teacher_is_named_from_its_manifest_or_its_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "k" / "manifest.json", {"teacher": "bigrec"})
    runs = [
        result("a", config(knowledge=str(tmp_path / "k"))),
        result("a", config(knowledge=str(tmp_path / "gone"))),
        result("b"),
    ]
    assert [one.name for one in tell_apart(runs)] == ["a, taught by bigrec", "a, taught by gone", "b"]


def test_an_option_that_differs_is_named_by_its_part_and_the_usual_value_is_not() -> None:
    runs = [result("a", config()), result("a", config("rd.k=5")), result("a", config("seed=3"))]
    assert [one.name for one in tell_apart(runs)] == ["a", "a, rd.k=5", "a #2"]
    dropout = [result("a", config(f"sasrec.dropout={value}")) for value in (0.1, 0.4)]
    assert [one.name for one in tell_apart(dropout)] == ["a, sasrec.dropout=0.1", "a, sasrec.dropout=0.4"]


def test_a_single_name_stays_and_many_differences_are_cut() -> None:
    words = ["rd.k=5", "train.epochs=3", "train.batch_size=7", "sasrec.dropout=0.3", "student.length=4"]
    names = [
        one.name for one in tell_apart([result("a", config()), result("a", config(*words)), result("c")])
    ]
    assert names[0].startswith("a, ")
    assert names[1].count("=") == 3
    assert names[1].endswith("...")
    assert names[2] == "c"
