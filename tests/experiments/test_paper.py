"""The pages of all tables over real runs at toy size."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from recdistill.config import read_config
from recdistill.data import SequenceDataset
from recdistill.evaluate import Evaluation, compare_evaluations
from recdistill.evaluate.significance import holm
from recdistill.experiments import make_plan, reproduce
from recdistill.experiments.published import TABLES, TEACHER, TEACHER_SECONDS, Match
from recdistill.experiments.timing import teacher_time
from recdistill.export import Recommender
from recdistill.knowledge import audit_knowledge, load_knowledge, save_knowledge
from recdistill.recipes import ABLATIONS
from recdistill.teachers import BlendTeacher, encode_text
from recdistill.teachers.answer_time import clocked


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("rep")


@pytest.fixture
def page(shop, out):
    """Carry out a table without tuning, in one folder for all tests."""

    def make(table, **changes):
        options = {"seeds": 2, "budget": 0, "words": shop.words, "students": ["sasrec"], **changes}
        plan = make_plan(table, shop.dataset, [shop.knowledge], **options)
        return reproduce(plan, out, shop.dataset, [shop.knowledge])

    return make


@pytest.fixture
def published(monkeypatch):
    """Let the ring pass for Toys, so that the published columns can be seen."""
    monkeypatch.setattr("recdistill.experiments.collect.match_dataset", lambda *_, **__: Match("toys", "As."))


def evaluations(shop, out, facts, name):
    """Return the test evaluations of a line, read from its folders."""
    run = next(one for one in facts["runs"] if one["name"] == name)
    return [Evaluation.load(out / folder / "evaluation" / "test-filtered") for folder in run["folders"]]


def test_table5_means_spreads_and_tests(page, shop, out):
    document = page("table5", strategies=["rd", "dllm2rec"])
    facts = document.facts["students"]["sasrec"]
    lines = {line["name"]: line for line in facts["comparison"]["lines"]}
    assert list(lines) == ["graph (teacher)", "none", "rd", "dllm2rec"]
    plain = evaluations(shop, out, facts, "none")
    raw = []
    for name in ("rd", "dllm2rec"):
        ours = evaluations(shop, out, facts, name)
        values = [one.metrics()["ndcg@20"] for one in ours]
        assert lines[name]["metrics"]["ndcg@20"] == pytest.approx(np.mean(values))
        assert lines[name]["spread"]["ndcg@20"] == pytest.approx(np.std(values, ddof=1))
        raw.append(compare_evaluations(ours, plain).p)
        assert lines[name]["comparison"]["p"] == pytest.approx(raw[-1])
    everything = [line["comparison"] for line in lines.values() if line["comparison"]]
    assert [c["p_holm"] for c in everything] == pytest.approx(holm([c["p"] for c in everything]))
    assert sorted(one.seed for one in plain) == [1, 2]
    assert document.pictures[0].png.startswith(b"\x89PNG")
    assert any("No published figures" in note for note in document.notes)


def test_published_columns_and_gains_beside_ours(page, published):
    document = page("table5", strategies=["rd", "dllm2rec"])
    main, _, gains, _ = document.tables
    rows = {row[0]: row for row in main.lines}
    hr, ndcg = TABLES["table5"]["sasrec"]["rd"]["toys"]
    assert main.columns[-4:] == [
        "HR@20 published",
        "ours − published",
        "NDCG@20 published",
        "ours − published",
    ]
    assert (rows["rd"][-4], rows["rd"][-2]) == (f"{hr:.4f}", f"{ndcg:.4f}")
    ours = float(rows["rd"][1].split()[0])
    assert float(rows["rd"][-3]) == pytest.approx(ours - hr, abs=1.1e-4)
    assert rows["graph (teacher)"][-4] == f"{TEACHER['toys'][0]:.4f}"
    gain = {row[0]: row for row in gains.lines}
    plain = [float(rows["none"][k].split()[0]) for k in (1, 2)]
    mean = np.mean([float(rows["rd"][k].split()[0]) / plain[k - 1] - 1 for k in (1, 2)])
    assert float(gain["rd"][1].rstrip("%")) / 100 == pytest.approx(mean, abs=2e-2)
    paper_gain = (0.0397 / 0.0207 + 0.0164 / 0.0130) / 2 - 1
    assert gain["rd"][3] == f"{paper_gain:+.1%}"


def test_tables_1_and_6_measure_time(page, published, shop, out):
    one, six = page("table1"), page("table6")
    assert [row[0] for row in one.tables[0].lines] == ["graph (teacher)", "none"]
    times = six.facts["students"]["sasrec"]["inference"]
    assert set(times) == {"graph (teacher)", "none", "dllm2rec"}
    assert all(0 < found["wall"] < 10 and found["cpu"] > 0 for found in times.values())
    assert times["none"]["rows"] == 40
    assert page("table6").facts["students"]["sasrec"]["inference"] == times  # kept, not measured again
    column = six.tables[0].columns.index("published")
    assert six.tables[0].lines[0][column] == f"{TEACHER_SECONDS['toys'][0] / 3600:.1f} h"
    assert (
        "dllm2rec against graph (teacher)" in six.tables[0].caption or "none against" in six.tables[0].caption
    )


def test_a_blend_is_asked_again(shop, tmp_path):
    data = SequenceDataset.load(shop.dataset)
    known = BlendTeacher({"tfidf": encode_text(data.catalogue.titles).vectors}).teach(
        data, data.rows("test"), top_k=5
    )
    save_knowledge(known, tmp_path / "k", dataset=data)
    found = teacher_time(tmp_path / "k", data, shop.dataset, filter_seen=True, cache=tmp_path / "c")
    assert found.rows == 40
    assert 0 < found.wall < 10
    assert found.cpu > 0


def test_a_teacher_that_cannot_be_asked_again_tells_the_time_it_took(shop, tmp_path):
    data = SequenceDataset.load(shop.dataset)
    known = load_knowledge(shop.knowledge, data)
    other = replace(known, manifest={**known.manifest, "teacher": "bigrec"})
    save_knowledge(other, tmp_path / "k", dataset=data)
    found = teacher_time(tmp_path / "k", data, shop.dataset, filter_seen=True, cache=tmp_path / "c")
    assert (found.wall, found.cpu) == (None, None)
    assert "not measured" in found.how
    with clocked(tmp_path / "k", 8):
        time.sleep(0.02)
    found = teacher_time(tmp_path / "k", data, shop.dataset, filter_seen=True, cache=tmp_path / "c")
    assert found.wall is not None
    assert 0.02 / 8 * 40 <= found.wall < 5
    assert found.cpu is None
    assert "took to answer" in found.how


def test_tables_2_and_3_are_the_audits(page, shop, out):
    two, three = page("table2"), page("table3")
    strength = two.facts["audits"]["graph (teacher) / sasrec"]["strength"]
    data = SequenceDataset.load(shop.dataset)
    facts = page("table5", strategies=["rd"]).facts["students"]["sasrec"]
    student = evaluations(shop, out, facts, "none")[0]
    audit = audit_knowledge(load_knowledge(shop.knowledge), data, filter_seen=True, other=student, slices={})
    assert strength[0] == vars(audit.model.strength)
    ratio = np.mean([one["ratio"] for one in strength])
    assert two.tables[0].lines[0][1].startswith(f"{ratio:.2%}")
    assert two.tables[0].lines[1][1].startswith(f"{1 - ratio:.2%}")
    overlap = three.facts["audits"]["graph (teacher) / sasrec"]["overlap"]
    assert len(overlap) == 2
    assert overlap[0]["shared"] + overlap[0]["first_only"] == pytest.approx(1)
    assert [row[0] for row in three.tables[0].lines] == ["graph (teacher) only", "sasrec only", "overlapped"]


def test_table_4_needs_no_run(shop, tmp_path):
    plan = make_plan("table4", shop.dataset, [])
    document = reproduce(plan, tmp_path, shop.dataset, [])
    assert document.tables[0].lines[1] == ["items", "40"]
    assert not (tmp_path / "runs").exists()


def test_ablations_are_compared_with_the_whole(page, out):
    document = page("table7", seeds=1)
    facts = document.facts["students"]["sasrec"]
    assert facts["comparison"]["reference"] == "DLLM2Rec"
    folders = {run["name"]: run["folders"][0] for run in facts["runs"]}
    config = read_config(out / folders["w/o w_c"] / "config.yaml")
    assert config.strategies[0].options["gamma_confidence"] == 0
    shared = page("table5", strategies=["dllm2rec"], seeds=1).facts["students"]["sasrec"]["runs"][-1]
    assert shared["folders"] == [folders["DLLM2Rec"]]  # tables share their runs


def test_figure_2_draws_each_hyperparameter(page):
    document = page(
        "figure2", seeds=1, words=["train.epochs=1", "student.embedding_size=4", "student.length=3"]
    )
    assert len(document.tables[0].lines) == 21
    assert document.pictures[0].png.startswith(b"\x89PNG")
    assert json.loads(document.to_json())["table"] == "figure2"


def test_best_beside_everything_and_without_its_levers(page, shop):
    document = page("best")
    titles = [table.title for table in document.tables]
    facts = document.facts["students"]["sasrec"]
    against = {line["name"]: line for line in facts["comparison"]["lines"]}
    assert {"none", "best", "graph (teacher)", "popularity"} <= set(against)
    assert facts["comparison"]["reference"] == "none"
    assert any("hop" in title for title in titles)
    levers = facts["levers"]
    assert levers["reference"] == "best"
    assert [line["name"] for line in levers["lines"]][:3] == ["none", "best", "w/o text"]
    assert all(line["comparison"] for line in levers["lines"] if line["name"] != "best")
    table = next(table for table in document.tables if table.title == "sasrec: one lever left out")
    assert table.columns[1:5] == ["HR@10", "NDCG@10", "HR@20", "NDCG@20"]
    cost = next(table for table in document.tables if table.title == "Teachers")
    assert float(cost.lines[0][2].split()[0]) > 0  # the teacher's own time
    assert len(document.pictures) >= 3


def test_levers_are_compared_with_the_preset(page):
    document = page("levers", seeds=1)
    levers = document.facts["students"]["sasrec"]["levers"]
    names = [line["name"] for line in levers["lines"]]
    assert levers["reference"] == "best"
    assert names == ["none", *ABLATIONS["levers"]]
    table = next(
        table for table in document.tables if table.title == "sasrec: another lever in the place of one"
    )
    assert [line[0] for line in table.lines] == names
    assert not any(note.startswith("FAILED") for note in document.notes)
    shared = page("best", seeds=1).facts["students"]["sasrec"]["runs"]
    runs = {run["name"]: run["folders"] for run in document.facts["students"]["sasrec"]["runs"]}
    assert {run["name"]: run["folders"] for run in shared}["best"] == runs["best"]  # tables share their runs


def test_best_without_the_preset_itself_still_tells_the_rest(shop, tmp_path):
    words = [*shop.words, "rrd.weight=1.0e+39"]
    plan = make_plan("best", shop.dataset, [shop.knowledge], seeds=1, budget=0, words=words)
    document = reproduce(plan, tmp_path, shop.dataset, [shop.knowledge])
    levers = [line["name"] for line in document.facts["students"]["sasrec"]["levers"]["lines"]]
    assert levers == ["none", "w/o ranking", "w/o teacher"]
    assert sum(note.startswith("FAILED") for note in document.notes) == len(plan.lines) - len(levers)


def test_best_says_which_student_validation_picks(shop, tmp_path):
    shutil.copytree(shop.knowledge, tmp_path / "other")
    teachers = [shop.knowledge, tmp_path / "other"]
    plan = make_plan("best", shop.dataset, teachers, seeds=1, budget=0, words=shop.words)
    document = reproduce(plan, tmp_path / "out", shop.dataset, teachers)
    table = next(table for table in document.tables if table.title == "sasrec: what validation picks")
    runs = {run["name"]: run["folders"][0] for run in document.facts["students"]["sasrec"]["runs"]}
    data = SequenceDataset.load(shop.dataset)
    for name, value, _ in table.lines:
        student = Recommender.load(tmp_path / "out" / runs[name])
        found = student.evaluate(data, "valid", filter_seen=True).metrics((20,))["ndcg@20"]
        assert value == f"{found:.4f}"
    assert [line[0] for line in table.lines] == ["none", "best [k]", "best [other]"]
    assert max(table.lines, key=lambda line: float(line[1]))[2] == "picked"
    assert [line[2] for line in table.lines].count("picked") == 1


def test_failed_runs_are_said_and_left_out(shop, tmp_path):
    words = [*shop.words, "hint.weight=1.0e+39"]
    plan = make_plan(
        "table5",
        shop.dataset,
        [shop.knowledge],
        students=["sasrec"],
        strategies=["hint", "rd"],
        seeds=1,
        budget=0,
        words=words,
    )
    document = reproduce(plan, tmp_path, shop.dataset, [shop.knowledge])
    names = [line["name"] for line in document.facts["students"]["sasrec"]["comparison"]["lines"]]
    assert names == ["graph (teacher)", "none", "rd"]
    assert any(
        note.startswith("FAILED, sasrec (paper), hint, seed 1: the loss became") for note in document.notes
    )
    row = next(row for row in document.tables[1].lines if row[0] == "hint")
    assert row[1] == "none"
