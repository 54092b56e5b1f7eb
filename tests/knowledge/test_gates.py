import dataclasses

import numpy as np
import pytest

from recdistill.evaluate import Evaluation
from recdistill.knowledge import audit_knowledge, render_audit, teacher_evaluation
from recdistill.knowledge.gates import ORDER, quality_gates


@pytest.fixture(scope="module")
def teacher(dataset, knowledge):
    return teacher_evaluation(knowledge, dataset, "valid", False)


def ask(knowledge, dataset, teacher, **others):
    return {gate.name: gate for gate in quality_gates(knowledge, dataset, teacher, **others)}


def ranked(teacher, ranks):
    return dataclasses.replace(teacher, ranks=np.asarray(ranks))


def test_hits_are_compared_with_popularity_and_half_the_student(dataset, knowledge, teacher):
    n = len(teacher)
    mine = ranked(teacher, np.where(np.arange(n) < 10, 0, 25))  # HR@20 is 10 / n
    for hits, popular, student in (
        (9, "passed", "passed"),
        (10, "failed", "passed"),
        (20, "failed", "failed"),
    ):
        other = ranked(teacher, np.where(np.arange(n) < hits, 0, 25))
        gates = ask(knowledge, dataset, mine, popularity=other, student=other)
        assert (gates["popularity"].status, gates["student"].status) == (popular, student)
        assert gates["popularity"].value == pytest.approx(10 / n)
        assert gates["student"].threshold == pytest.approx(hits / n / 2)
        assert gates["popularity"].fatal
        assert gates["student"].fatal
    assert f"HR@20 {10 / n:.4f}, needed: above {10 / n:.4f} (0.5 x the student)" in gates["student"].detail
    assert "choose another teacher" in gates["student"].detail


def test_rows_are_joined_by_id(dataset, knowledge, teacher):
    some = np.arange(len(teacher)) % 2 == 0
    best = dataclasses.replace(teacher, row_ids=teacher.row_ids[some], ranks=np.zeros(some.sum(), dtype=int))
    mine = ranked(teacher, np.where(some, 25, 0))  # wrong on exactly the rows that both have
    assert ask(knowledge, dataset, mine, popularity=best)["popularity"].value == 0


def test_variety_counts_items_in_the_first_ten_of_many_users(make_ring, make_knowledge):
    dataset = make_ring(items=400, users=40, titles=[f"t{i}" for i in range(400)])
    known = make_knowledge(dataset, k=12)
    judged = teacher_evaluation(known, dataset, "valid", False)
    rows = dataset.positions_of(judged.row_ids)
    gate = ask(known, dataset, judged)["variety"]
    distinct = {i for line in known.ranking[rows][:, :10].tolist() for i in line}
    assert gate.status == "passed"
    assert gate.value == pytest.approx(len(distinct) / 400)
    alike = known.ranking.copy()
    alike[:, :10] = np.arange(10)
    alike[:, 10:] = [399, 398]
    gate = ask(dataclasses.replace(known, ranking=alike), dataset, judged)["variety"]
    assert gate.status == "failed"
    assert "10 different items in the top 10 of 40 users (2.5% of the catalogue), needed: 20" in gate.detail


@pytest.mark.parametrize(("hit", "miss", "found"), [(1.0, 2.0, 1), (2.0, 1.0, -1)])
def test_calibration_is_the_sign_of_the_correlation(dataset, knowledge, teacher, hit, miss, found):
    ranks = np.where(np.arange(len(teacher)) % 3 == 0, 3, 25)
    distance = knowledge.ranking_distance.copy()
    at = np.searchsorted(knowledge.row_ids, teacher.row_ids)
    distance[at] = np.where(ranks < 20, hit, miss)[:, None] + np.arange(distance.shape[1])
    known = dataclasses.replace(knowledge, ranking_distance=distance)
    gate = ask(known, dataset, ranked(teacher, ranks))["calibration"]
    assert gate.value == pytest.approx(found)
    assert gate.status == ("passed" if found > 0 else "failed")
    assert ("gamma_confidence=0" in gate.detail) == (found < 0)
    assert not gate.fatal


def test_order_reads_the_manifest(dataset, knowledge, teacher):
    for drop, status in (
        (0.3, "passed"),
        (0.02, "passed"),
        (0.019, "failed"),
        (-0.1, "failed"),
        (None, "not asked"),
    ):
        manifest = {**knowledge.manifest, ORDER: {"drop": drop, "drop_error": 0.004, "rows": 900}}
        gate = ask(dataclasses.replace(knowledge, manifest=manifest), dataset, teacher)["order"]
        assert gate.status == status
    gate = ask(
        dataclasses.replace(
            knowledge, manifest={**manifest, ORDER: {"drop": 0.01, "drop_error": 0.004, "rows": 900}}
        ),
        dataset,
        teacher,
    )["order"]
    assert "cost 1.0% ± 0.8% of NDCG@20 in 900 rows, needed: 2%" in gate.detail
    assert "no sequential signal" in gate.detail


def test_what_is_missing_is_not_asked(dataset, knowledge, make_knowledge):
    bare = make_knowledge(dataset, dataset.rows("train"))
    gates = ask(bare, dataset, None)
    assert {gate.status for gate in gates.values()} == {"not asked"}
    assert "--splits train,valid,test" in gates["popularity"].detail
    assert "recdistill teach" in gates["order"].detail


def test_the_audit_refuses_a_teacher_below_popularity(dataset, knowledge, teacher):
    perfect = Evaluation("popularity", "valid", teacher.row_ids, np.zeros(len(teacher), dtype=int), 30, False)
    weak = dataclasses.replace(
        knowledge, target_rank=np.full(len(knowledge), 25), ranking=None, ranking_distance=None
    )
    audit = audit_knowledge(weak, dataset, valid_popularity=perfect)
    assert audit.verdict.startswith(
        "Do not distil: the teacher fails a quality gate on validation rows. popularity:"
    )
    text = render_audit(audit)
    assert "## Quality gates, on validation rows" in text
    assert "| popularity | NO | HR@20 0.0000, needed: above 1.0000" in text
    good = audit_knowledge(knowledge, dataset, valid_popularity=ranked(perfect, np.full(len(teacher), 25)))
    assert not good.verdict.startswith("Do not distil")
    assert {gate.name: gate.status for gate in good.gates}["popularity"] == "passed"
    assert good.to_json()["gates"][0]["name"] == "popularity"


def test_a_teacher_that_learned_from_validation_rows_is_not_judged_by_them(dataset, knowledge):
    known = dataclasses.replace(knowledge, manifest={**knowledge.manifest, "learned": ["valid"]})
    gates = ask(known, dataset, teacher_evaluation(known, dataset, "valid", False))
    told = [gates[name] for name in ("popularity", "student", "variety", "calibration")]
    assert {gate.status for gate in told} == {ask(knowledge, dataset, None)["variety"].status}
    assert all("teach again" in gate.detail for gate in told)
    assert set(gates) == set(ask(knowledge, dataset, None))
