import dataclasses
import json

import numpy as np
import pytest

from recdistill.errors import KnowledgeError
from recdistill.evaluate import Evaluation
from recdistill.evaluate.slices import slice_masks
from recdistill.knowledge import Knowledge, audit_knowledge, render_audit, teacher_evaluation
from references.overlap import table2, table3


def student(knowledge, dataset, split="test", filter_seen=False, name="student"):
    found = teacher_evaluation(knowledge, dataset, split, filter_seen)
    return dataclasses.replace(found, name=name)


@pytest.fixture(scope="module")
def rival(dataset, make_knowledge):
    """A worse model with lists of 30 items."""
    return make_knowledge(dataset, k=20, noise=2.5, seed=5)


@pytest.fixture(scope="module")
def tops(dataset, rival):
    return rival.rows_for(dataset.row_ids[dataset.rows("test")]).ranking.numpy()


@pytest.mark.parametrize("filter_seen", [False, True])
def test_the_teacher_is_evaluated_by_its_ranks(dataset, knowledge, filter_seen):
    found = teacher_evaluation(knowledge, dataset, "valid", filter_seen)
    rows = dataset.rows("valid")
    ranks = knowledge.target_rank_unseen if filter_seen else knowledge.target_rank
    assert found.row_ids.tolist() == dataset.row_ids[rows].tolist()
    assert found.ranks.tolist() == ranks[rows].tolist()
    assert (found.name, found.split, found.filter_seen) == ("oracle", "valid", filter_seen)


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("items", [30, 6])  # on a ring of 6, targets come back
def test_without_ranks_the_lists_give_them(make_ring, make_knowledge, filter_seen, items):
    dataset = make_ring(items=items)
    whole = make_knowledge(dataset, k=dataset.item_count)
    bare = dataclasses.replace(whole, target_rank=None, target_rank_unseen=None)
    full = teacher_evaluation(whole, dataset, "test", filter_seen).ranks
    assert teacher_evaluation(bare, dataset, "test", filter_seen).ranks.tolist() == full.tolist()
    if not filter_seen:
        short = teacher_evaluation(bare.top(4), dataset, "test", filter_seen).ranks
        assert short.tolist() == np.where(full < 4, full, dataset.item_count - 1).tolist()


def test_only_rows_with_a_rank_are_evaluated(dataset, knowledge):
    ranks = knowledge.target_rank.copy()
    ranks[dataset.rows("test")[:5]] = -1
    found = teacher_evaluation(dataclasses.replace(knowledge, target_rank=ranks), dataset, "test", False)
    assert found.row_ids.tolist() == dataset.row_ids[dataset.rows("test")[5:]].tolist()
    train_only = Knowledge(knowledge.row_ids[:1], 30, ranking=knowledge.ranking[:1])
    assert teacher_evaluation(train_only, dataset, "test", False) is None
    vectors_only = Knowledge(knowledge.row_ids, 30, target_distance=knowledge.target_distance)
    assert teacher_evaluation(vectors_only, dataset, "test", False) is None


def test_tables_2_and_3(dataset, knowledge, rival, tops):
    other = student(rival, dataset)
    audit = audit_knowledge(knowledge, dataset, other=other, other_top=tops, k=5)
    mine = teacher_evaluation(knowledge, dataset, "test", False)
    better, worse = table2(mine.ranks.tolist(), other.ranks.tolist())
    assert audit.model.strength.ratio == pytest.approx(better / (better + worse))
    assert audit.model.metrics["ndcg@5"] == pytest.approx(other.metrics()["ndcg@5"])
    assert audit.model.teacher_metrics["hr@5"] == pytest.approx(mine.metrics()["hr@5"])
    lists = knowledge.rows_for(mine.row_ids).ranking[:, :5].tolist()
    counts = table3(lists, tops[:, :5].tolist(), dataset.targets(dataset.rows("test")).tolist())
    overlap = audit.model.overlap
    slots = 5 * len(mine)
    assert overlap.shared == pytest.approx(counts["shared"][0] / slots)
    assert overlap.hits_shared == pytest.approx(counts["shared"][1] / counts["shared"][0])
    assert overlap.hits_first_only == pytest.approx(counts["first_only"][1] / counts["first_only"][0])


def test_filtered_lists_are_compared_without_the_history(dataset, knowledge):
    ids = dataset.row_ids[dataset.rows("test")]
    audit = audit_knowledge(
        knowledge,
        dataset,
        filter_seen=True,
        other=student(knowledge, dataset, filter_seen=True),
        other_top=knowledge.rows_for(ids).ranking,
        k=6,
    )
    assert audit.lists.history_share == 0
    assert audit.model.overlap.first_only == 0
    assert audit.model.overlap.second_only > 0  # what the other lists from the history
    assert audit.model.strength.equal == 1


def test_a_good_teacher(dataset, knowledge, rival):
    audit = audit_knowledge(knowledge, dataset, baselines={"free": student(rival, dataset)})
    assert audit.verdict.startswith("Worth distilling: NDCG@20")
    assert audit.baselines[0].difference.sign() == 1
    assert all(check.passed for check in audit.checks)
    assert audit.coverage["train"].share == 1
    families = slice_masks(dataset, dataset.rows("test"))
    names = {f"{family}: {name}" for family, masks in families.items() for name in masks}
    assert {found.name for found in audit.slices} == names
    rows = {found.name: found.rows for found in audit.slices}
    for family, masks in families.items():
        assert sum(rows[f"{family}: {name}"] for name in masks) == len(dataset.rows("test"))


def test_a_bad_teacher_and_the_order_of_the_baselines(dataset, knowledge, rival, make_knowledge):
    free = {
        "weak": student(make_knowledge(dataset, noise=9, seed=8), dataset),
        "strong": student(knowledge, dataset),
    }
    audit = audit_knowledge(rival, dataset, baselines=free, slices={})
    assert [found.name for found in audit.baselines] == ["strong", "weak"]
    assert audit.verdict.startswith("Not worth distilling as a whole")
    assert "better on no part of the rows" in audit.verdict
    assert "recdistill teach graph" in audit.verdict


def test_a_teacher_that_is_one_of_the_baselines(dataset, knowledge, rival):
    free = {"weak": student(rival, dataset), "itself": student(knowledge, dataset)}
    audit = audit_knowledge(knowledge, dataset, baselines=free)
    assert audit.baselines[0].name == "itself"
    assert audit.benchmark.name == "weak"
    assert audit.verdict.startswith(
        "This teacher is the free model itself: its knowledge costs nothing. Worth"
    )
    assert any(found.difference.mean > 0 for found in audit.slices)
    alone = audit_knowledge(knowledge, dataset, baselines={"itself": free["itself"]})
    assert alone.verdict == "This teacher is the free model itself: its knowledge costs nothing."
    assert "## Where" not in render_audit(alone)


def test_where_it_is_better(dataset, knowledge, rival):
    """Better than the free model on the first half of the rows, worse on the other, level over all."""
    good, bad = student(knowledge, dataset), student(rival, dataset)
    first = np.arange(len(good)) < len(good) // 2
    ranks = np.where(first, good.ranks, bad.ranks)
    mixed = knowledge.target_rank.copy()
    mixed[dataset.rows("test")] = ranks
    teacher = dataclasses.replace(knowledge, target_rank=mixed, ranking=None, ranking_distance=None)
    free = dataclasses.replace(good, ranks=np.where(first, bad.ranks, good.ranks))
    masks = {"half": {"first": first, "second": ~first, "nobody": first & ~first}}
    audit = audit_knowledge(teacher, dataset, baselines={"free": free}, slices=masks)
    assert [found.name for found in audit.slices] == ["half: first", "half: second"]
    assert audit.slices[0].difference.mean > 0 > audit.slices[1].difference.mean
    assert "It is better on half: first: let it teach there." in audit.verdict
    assert "only strategies on embeddings" in " ".join(audit.warnings)


def test_the_verdict_on_a_student(dataset, knowledge, rival, make_knowledge):
    weak = audit_knowledge(
        make_knowledge(dataset, noise=12, seed=2), dataset, other=student(knowledge, dataset), k=5
    )
    assert "is behind student" in weak.verdict
    assert any("hits less than half as often as student" in warning for warning in weak.warnings)
    strong = audit_knowledge(knowledge, dataset, other=student(rival, dataset), k=5)
    assert "is better than student" in strong.verdict
    assert "something to learn" in strong.verdict
    same = audit_knowledge(knowledge, dataset, other=student(knowledge, dataset), k=5)
    assert "is level with student" in same.verdict
    assert "adds little" in same.verdict


def test_training_rows_only(dataset, make_knowledge):
    audit = audit_knowledge(make_knowledge(dataset, dataset.rows("train")[3:]), dataset)
    assert audit.verdict.startswith("Cannot be judged: the teacher has no ranks on test rows")
    assert set(audit.metrics) == {"train"}
    assert audit.lists.rows == len(dataset.rows("train")) - 3
    warnings = " ".join(audit.warnings)
    assert "No test row is covered" in warnings
    assert "(3 are not)" in warnings


def test_nothing_to_compare_with(dataset, knowledge):
    assert audit_knowledge(knowledge, dataset).verdict.startswith("Not compared with anything")


def test_shuffled_rows_contradict_themselves(dataset, knowledge):
    order = np.random.default_rng(0).permutation(len(knowledge))
    shuffled = dataclasses.replace(
        knowledge, ranking=knowledge.ranking[order], ranking_distance=knowledge.ranking_distance[order]
    )
    audit = audit_knowledge(shuffled, dataset)
    failed = {check.name for check in audit.checks if not check.passed}
    assert {"places of listed targets", "distances of listed targets"} <= failed
    assert audit.verdict.startswith("Do not distil")
    assert audit.warnings[0].startswith("Alignment:")


def test_another_dataset(knowledge, make_ring):
    audit = audit_knowledge(knowledge, make_ring(users=10, seed=4, titles=["x"] * 30))
    failed = {check.name for check in audit.checks if not check.passed}
    assert {"fingerprint", "titles", "row ids"} <= failed
    assert audit.verdict.startswith("Do not distil")
    assert audit.metrics == {}


def test_confidence_that_would_collapse(dataset, knowledge):
    far = dataclasses.replace(
        knowledge,
        ranking_distance=knowledge.ranking_distance + 40,
        target_distance=knowledge.target_distance + 40,
    )
    warnings = " ".join(audit_knowledge(far, dataset).warnings)
    assert "exp(-d) is uniform in 100.0% of the rows" in warnings
    assert "true item vanishes in 100.0% of the rows" in warnings
    assert "uniform" not in " ".join(audit_knowledge(knowledge, dataset).warnings)


def test_lists_that_are_alike_and_titles_that_repeat(dataset, knowledge, make_ring):
    same = np.tile(np.arange(6, dtype=np.int32), (len(knowledge), 1))
    big = make_ring(items=400, users=40, titles=["twin"] * 6 + [f"t{k}" for k in range(394)])
    alike = Knowledge(
        big.row_ids,
        400,
        ranking=np.tile(same[:1], (len(big.row_ids), 1)),
        target_rank=np.full(len(big.row_ids), 9),
        manifest={"dataset_fingerprint": big.fingerprint},
    )
    warnings = " ".join(audit_knowledge(alike, big, k=6).warnings)
    assert "The lists are alike: 6 different items in 40 lists (1.5% of the catalogue)" in warnings
    assert "83.3% of the listed items repeat a title" in warnings
    assert "slots are empty" in " ".join(audit_knowledge(alike, big, k=12).warnings)


def test_others_must_be_judged_the_same_way(dataset, knowledge, rival):
    for other in (student(rival, dataset, "valid"), student(rival, dataset, filter_seen=True)):
        with pytest.raises(KnowledgeError, match="judged the same way"):
            audit_knowledge(knowledge, dataset, other=other)
    stranger = Evaluation("s", "test", np.array([1]), np.array([0]), 30, False)
    with pytest.raises(KnowledgeError, match="no test row in common"):
        audit_knowledge(knowledge, dataset, baselines={"s": stranger})


def test_markdown_and_json(dataset, knowledge, rival, tops):
    other = student(rival, dataset, name="r|1")
    audit = audit_knowledge(
        knowledge, dataset, other=other, other_top=tops, baselines={"popularity": other}, k=10
    )
    text = render_audit(audit)
    for heading in (
        "Table 2",
        "Table 3",
        "## Where",
        "## The distances",
        "## Alignment",
        "HR@10",
        "popularity",
    ):
        assert heading in text
    assert text.startswith("# Audit: oracle on ring\n\n**Worth distilling")
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    found = json.loads(json.dumps(audit.to_json(), allow_nan=False))
    assert found["rivals"][0]["strength"]["ratio"] == audit.model.strength.ratio
    assert found["verdict"] == audit.verdict
    bare = Knowledge(knowledge.row_ids, 30, target_distance=knowledge.target_distance)
    assert "NO" in render_audit(audit_knowledge(bare, dataset))
