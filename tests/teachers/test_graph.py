from dataclasses import replace

import numpy as np
import pytest

from recdistill.errors import ConfigError
from recdistill.teachers import base
from recdistill.teachers.graph.scorer import GraphOptions, GraphScorer, last_items
from recdistill.teachers.graph.teacher import GraphTeacher
from recdistill.teachers.graph.tuning import tune
from recdistill.types import PAD
from references.graph_teacher import naive_matrix, naive_score

VARIANTS = [
    GraphOptions(),
    GraphOptions(text_weight=0.0, two_hop=0.0),
    GraphOptions(max_gap=1, backward=0.0, last_items=1, two_hop_items=1, decay=1.0),
    GraphOptions(repeat_weight=0.0, two_hop=0.8, two_hop_items=4),
]


@pytest.fixture(scope="module")
def text(walks):
    vectors = np.random.default_rng(3).normal(size=(walks.item_count, 6)).astype(np.float32)
    vectors[-1] = 0  # an item without text
    return vectors


def history_of(dataset, row):
    return dataset.events[dataset.offsets[dataset.row_sequences[row]] : dataset.row_events[row]]


@pytest.mark.parametrize("options", VARIANTS)
def test_training_rows_are_scored_on_the_graph_without_their_own_event(walks, text, options):
    scorer = GraphScorer(walks, text, options)
    rows = base.rows_to_teach(walks, ["train"])
    found = scorer.score_rows(rows, walks.histories(rows, 12)).numpy()
    for n, row in enumerate(rows):
        matrix = naive_matrix(walks, options.max_gap, options.backward, without=walks.row_events[row])
        expected = naive_score(matrix, history_of(walks, row), text, options)
        np.testing.assert_allclose(found[n], expected, atol=3e-6)


@pytest.mark.parametrize("options", VARIANTS)
def test_test_rows_are_scored_on_the_whole_training_graph(walks, text, options):
    scorer = GraphScorer(walks, text, options)
    rows = walks.rows("test")
    history = walks.histories(rows, 12)
    matrix = naive_matrix(walks, options.max_gap, options.backward)
    expected = np.stack([naive_score(matrix, history_of(walks, row), text, options) for row in rows])
    np.testing.assert_allclose(scorer(history).numpy(), expected, atol=3e-6)
    np.testing.assert_array_equal(scorer.score_rows(rows, history).numpy(), scorer(history).numpy())


def test_a_row_does_not_betray_its_target(make_dataset):
    # Nobody but the row's own user ever went 0 -> 9; without the row it must look like the never-seen 10.
    dataset = make_dataset([[0, 9, 1, 2], *[[0, 1, 2, 3, 4]] * 5, [5, 6, 7, 8, 5, 6]], item_count=11)
    row = dataset.rows("train")[:1]
    scores = GraphScorer(dataset).score_rows(row, dataset.histories(row, 5))[0]
    assert dataset.targets(row)[0] == 9
    assert scores[9] == scores[10]
    assert GraphScorer(dataset)(dataset.histories(row, 5))[0, 9] > scores[10]


def test_ties_go_by_popularity(make_dataset):
    dataset = make_dataset([[0, 1, 2, 2, 3, 3, 0, 0], [4, 5, 4, 5, 6]], item_count=8)
    scores = GraphScorer(dataset)(np.array([[7, PAD]]))[0].numpy()  # 7 was never seen
    np.testing.assert_array_equal(
        np.argsort(-scores, kind="stable"), np.argsort(-dataset.popularity, kind="stable")
    )
    assert scores.max() <= 1e-6


def test_last_items_are_newest_first_with_decaying_weights():
    items, weight = last_items(np.array([[4, 5, 6, PAD], [7, PAD, PAD, PAD]]), 2, 0.5)
    assert items.tolist() == [[6, 5], [7, 7]]
    assert weight.tolist() == [[1.0, 0.5], [1.0, 0.0]]


def test_tuning_never_loses_on_the_rows_it_sees(walks, text):
    worst = GraphOptions(repeat_weight=1.0, text_weight=4.0, decay=1.0, two_hop=5.0)
    tuned = tune(walks, text, worst)

    def quality(options):
        scorer = GraphScorer(walks, text, options)
        return base.ndcg(base.ranks_of_rows(scorer.score_rows, walks, walks.rows("valid"), length=50)[0])

    assert tuned != worst
    assert quality(tuned) > quality(worst)
    assert all(quality(tuned) >= quality(replace(tuned, backward=b)) for b in (0.35, 0.7, 1.0))


def test_tuning_without_text_or_rows_leaves_things_alone(walks, make_dataset):
    assert tune(walks, None, grid={"text_weight": (0.0, 1.0)}) == GraphOptions()
    assert tune(make_dataset([[0, 1]])) == GraphOptions()


def test_the_teacher_writes_checked_knowledge(walks, text):
    rows, done = base.rows_to_teach(walks), []
    teacher = GraphTeacher(text, item_embeddings=text, encoder="random")
    known = teacher.teach(walks, rows, top_k=10, progress=done.append)
    known.check(walks.targets(rows))
    assert sum(done) == len(rows) == len(known.row_ids)
    assert known.manifest["teacher"] == "graph"
    assert known.manifest["options"]["decay"] == 0.6
    assert known.manifest["temperature"] == teacher.temperature
    np.testing.assert_array_equal(known.item_embeddings, text)
    scores = GraphScorer(walks, text).score_rows(rows, walks.histories(rows, 50)) / teacher.temperature
    expected = -scores.log_softmax(1)[np.arange(len(rows)), walks.targets(rows)]
    np.testing.assert_allclose(known.target_distance, expected, atol=1e-4)


def test_the_teacher_beats_chance_on_a_ring(walks):
    known = GraphTeacher(tune=True).teach(walks, walks.rows("test"))
    assert (known.target_rank < 5).mean() > 2 * 5 / 24


@pytest.mark.parametrize(
    "wrong", [{"decay": 0.0}, {"max_gap": 0}, {"text_weight": -1.0}, {"repeat_weight": 2.0}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        GraphOptions(**wrong)
