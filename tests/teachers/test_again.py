"""A teacher that counts further rows, against the same teacher on a dataset that was cut that way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recdistill.data.sequences import SPLIT_NAMES
from recdistill.errors import KnowledgeError
from recdistill.knowledge import load_knowledge, save_knowledge, teacher_evaluation
from recdistill.teachers import (
    BlendTeacher,
    GraphOptions,
    GraphTeacher,
    default_count,
    rows_to_teach,
    take_walks,
)
from recdistill.teachers.again import scorer_again, teach_again
from recdistill.teachers.blend import BlendScorer, Signals
from recdistill.teachers.text import encode_text

OPTIONS = GraphOptions(text_weight=0.3, repeat_weight=0.0)


def cut_that_way(dataset: Any) -> Any:
    codes = dataset.row_splits.copy()
    codes[codes == SPLIT_NAMES.index("valid")] = SPLIT_NAMES.index("train")
    return replace(dataset, row_splits=codes)


def graph(dataset: Any) -> GraphTeacher:
    text = encode_text(dataset.catalogue.titles).vectors
    return GraphTeacher(text, OPTIONS, temperature=0.1, item_embeddings=text, encoder="tfidf")


@pytest.fixture(scope="module")
def taught(walks: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taught")
    teacher = graph(walks)
    known = teacher.teach(walks, rows_to_teach(walks), top_k=7)
    written = take_walks(
        teacher.scorer(walks), walks, count=default_count(walks, 3), steps=3, temperature=0.1, top_k=7
    )
    save_knowledge(known, folder / "k", dataset=walks, walks=written)
    return folder / "k"


def test_it_answers_like_a_teacher_of_a_dataset_cut_that_way(
    walks: Any, taught: Path, tmp_path: Path
) -> None:
    view, done = walks.learning_from("valid"), []
    found, written = teach_again(taught, view, cache=tmp_path, bar=lambda text, total: done.append)
    other = cut_that_way(walks)
    expected = graph(other).teach(other, rows_to_teach(other), top_k=7)
    before = load_knowledge(taught)
    for name in ("ranking", "target_rank", "target_rank_unseen"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    np.testing.assert_allclose(found.ranking_distance, expected.ranking_distance, atol=1e-5)
    assert np.array_equal(found.row_ids, before.row_ids)
    assert np.array_equal(found.item_embeddings, before.item_embeddings)
    assert not np.array_equal(found.ranking, before.ranking)
    assert found.manifest["options"] == before.manifest["options"]
    assert found.manifest["order_sensitivity"] == before.manifest["order_sensitivity"]
    assert len(written) == default_count(view, 3)
    assert written.steps == 3
    assert sum(done) == len(found) + 3 * len(written)


def test_a_blend_keeps_its_weights(walks: Any, tmp_path: Path) -> None:
    text = encode_text(walks.catalogue.titles).vectors
    teacher = BlendTeacher({"tfidf": text}, encoder="tfidf")
    known = teacher.teach(walks, rows_to_teach(walks, ["train", "valid"]), top_k=7)
    save_knowledge(known, tmp_path / "k", dataset=walks)
    found, written = teach_again(tmp_path / "k", walks.learning_from("valid"), cache=tmp_path)
    assert written is None
    assert found.manifest["weights"] == known.manifest["weights"]
    assert found.manifest["temperature"] == teacher.temperature
    other = cut_that_way(walks)
    scorer = BlendScorer(Signals(other, {"tfidf": text}), teacher.weights, repeats=known.manifest["repeats"])
    rows = rows_to_teach(other, ["train"])
    scores = scorer.score_rows(rows, other.histories(rows, 50))
    assert np.array_equal(found.row_ids, other.row_ids[rows])
    top = scores.topk(7, dim=1).values
    listed = np.take_along_axis(scores.numpy(), found.ranking.astype(np.int64), axis=1)
    np.testing.assert_allclose(listed, top, atol=1e-4)


def test_what_it_has_counted_is_not_what_it_is_judged_by(walks: Any, taught: Path, tmp_path: Path) -> None:
    view = walks.learning_from("valid")
    found, _ = teach_again(taught, view, cache=tmp_path)
    assert found.learned == ("valid",)
    assert teacher_evaluation(found, walks, "valid", False) is None
    assert len(teacher_evaluation(found, walks, "test", False)) == len(walks.rows("test"))
    save_knowledge(found, tmp_path / "k2", dataset=walks)
    assert load_knowledge(tmp_path / "k2", walks).learned == ("valid",)
    assert load_knowledge(taught, walks).learned == ()


def test_another_teacher_is_refused(walks: Any, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"a bigrec teacher .* Allowed: graph, blend"):
        scorer_again({"teacher": "bigrec"}, walks, tmp_path)
