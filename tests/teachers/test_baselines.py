import json
from importlib import import_module

import numpy as np
import pytest

from recdistill.teachers import base
from recdistill.teachers.baselines import BASELINES, PopularityScorer, baselines, evaluate_baselines
from recdistill.teachers.graph.scorer import GraphScorer
from recdistill.teachers.text.item_text import encode_text

module = import_module("recdistill.teachers.baselines")  # the package exports the function of this name


def test_there_are_three_and_each_scores_all_items(walks):
    scorers = baselines(walks)
    assert tuple(scorers) == BASELINES == ("popularity", "transition", "graph + text")
    history = walks.histories(walks.rows("test"), 5)
    for scorer in scorers.values():
        scores = scorer(history)
        assert scores.shape == (len(history), walks.item_count)
        assert np.isfinite(scores.numpy()).all()


def test_popularity_counts_training_targets_only(make_dataset):
    dataset = make_dataset([[0, 1, 1, 2, 3], [3, 1, 2, 3, 3]])
    assert PopularityScorer(dataset)(np.array([[0], [3]])).tolist() == [[0, 3, 1, 0]] * 2


def test_transition_reads_the_last_item_alone(walks):
    scorer = baselines(walks)["transition"]
    one, other = scorer(np.array([[3, 9, 5]])), scorer(np.array([[7, 1, 5]]))
    if isinstance(scorer, GraphScorer) and scorer.options.repeat_weight == 1:
        np.testing.assert_array_equal(one, other)
    unseen = [i for i in range(24) if i not in (1, 3, 5, 7, 9)]
    np.testing.assert_array_equal(one[0, unseen], other[0, unseen])


@pytest.mark.parametrize("filter_seen", [False, True])
def test_evaluations_are_the_scorers_ranks(walks, filter_seen):
    found = evaluate_baselines(walks, "test", filter_seen=filter_seen)
    rows = walks.rows("test")
    for name, scorer in baselines(walks).items():
        ranks = base.ranks_of_rows(base.plain(scorer), walks, rows, length=50)[int(filter_seen)]
        np.testing.assert_array_equal(found[name].ranks, ranks)
        assert found[name].filter_seen is filter_seen
    assert found["graph + text"].metrics()["ndcg@20"] > found["popularity"].metrics()["ndcg@20"]


def test_the_cache_holds_both_kinds_of_ranks_and_the_tuned_weights(walks, tmp_path, monkeypatch):
    first = evaluate_baselines(walks, "test", filter_seen=False, cache=tmp_path)
    plain = evaluate_baselines(walks, "test", filter_seen=True)
    folders = sorted(path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir())
    assert folders == ["graph-text", "popularity", "transition"]
    options = json.loads(next(tmp_path.glob("graph-text-*/options.json")).read_text())
    assert options["last_items"] == 5
    monkeypatch.setattr(module, "target_ranks", None)  # nothing may be ranked again
    again = evaluate_baselines(walks, "test", filter_seen=False, cache=tmp_path)
    filtered = evaluate_baselines(walks, "test", filter_seen=True, cache=tmp_path)
    for name in BASELINES:
        np.testing.assert_array_equal(again[name].ranks, first[name].ranks)
        np.testing.assert_array_equal(filtered[name].ranks, plain[name].ranks)


def test_a_second_split_is_not_tuned_again(walks, tmp_path, monkeypatch):
    evaluate_baselines(walks, "valid", filter_seen=False, cache=tmp_path)
    expected = evaluate_baselines(walks, "test", filter_seen=False)
    monkeypatch.setattr(module, "tune", None)
    found = evaluate_baselines(walks, "test", filter_seen=False, cache=tmp_path)
    np.testing.assert_array_equal(found["graph + text"].ranks, expected["graph + text"].ranks)


def test_other_text_is_another_cache_entry(walks, tmp_path):
    evaluate_baselines(walks, "test", filter_seen=False, cache=tmp_path)
    text = encode_text(walks.catalogue.titles, size=3)
    evaluate_baselines(walks, "test", filter_seen=False, cache=tmp_path, text=text)
    assert len(list(tmp_path.glob("graph-text-*"))) == 2
    assert len(list(tmp_path.glob("transition-*"))) == 1


def test_without_titles_the_graph_stands_alone(make_dataset):
    dataset = make_dataset([[0, 1, 2, 3, 4], [2, 3, 4, 0, 1]], titles=[""] * 5)
    assert set(evaluate_baselines(dataset, "test", filter_seen=False)) == set(BASELINES)


def test_a_cache_that_cannot_be_written_does_no_harm(walks, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = evaluate_baselines(walks, "test", filter_seen=False, cache=blocked)
    assert len(found["popularity"]) == len(walks.rows("test"))
