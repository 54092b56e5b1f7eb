"""New items without training: they get what they would have got as items that training never saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import export_students as students
from recdistill.data import Catalogue, SequenceDataset
from recdistill.errors import DataError, RunError
from recdistill.export import PRIOR, Recommender, export_recommender, extend_export
from recdistill.export.text_path import TextPath, through
from recdistill.item_encoders import ITEM_ENCODERS, text_map
from recdistill.teachers import encode_text
from recdistill.teachers.text import ItemText, encode_further
from recdistill.train.item_prior import with_prior
from shop import ITEMS, ring_dataset

WORDS = ["red", "blue", "old", "fast", "tin", "robot", "train", "bear", "farm", "castle", "ship", "moon"]
TITLES = [f"{WORDS[k % 12]} {WORDS[(k * 7 + 3) % 12]} {WORDS[(k // 5) % 12]} no {k}" for k in range(ITEMS)]


@pytest.fixture(scope="module")
def data() -> SequenceDataset:
    made = ring_dataset()
    return replace(made, catalogue=Catalogue(made.catalogue.frame.with_columns(title=pl.Series(TITLES))))


@pytest.fixture(scope="module")
def text() -> ItemText:
    return encode_text(TITLES, "tfidf", size=256)


def proved(data: SequenceDataset, text: ItemText, encoder: str, **options: object) -> Recommender:
    vectors = text.whitened(12)
    made = students.text_recommender(data, vectors, encoder, **options)
    assert made.text is not None
    return replace(made, text=made.text.proved(text, vectors))


OPTIONS = [
    ("collaborative", {}),
    ("collaborative", {"projector": "mlp", "rank": 5}),
    ("collaborative", {"standardise": False, "offset": False}),
    ("text_only", {"rank": 6}),
    ("two_branch", {"projector": "linear"}),
]


@pytest.mark.parametrize(("encoder", "options"), OPTIONS)
def test_the_map_forms_the_vectors_of_cold_items(
    data: SequenceDataset, text: ItemText, encoder: str, options: dict[str, object]
) -> None:
    """The folded table's rows of cold items, which training formed its own way, are the referee."""
    cold = np.zeros(ITEMS, dtype=bool)
    cold[[3, 20, 39]] = True
    vectors = text.whitened(12)
    made = students.text_recommender(data, vectors, encoder, cold=cold, **options)
    assert made.text is not None
    assert made.text.output is not None
    found = made.text.output(torch.from_numpy(vectors[cold]))
    torch.testing.assert_close(found, made.model.output_encoder.table()[cold], atol=1e-5, rtol=1e-4)


def test_without_cold_items_new_vectors_are_as_long_as_others(text: ItemText) -> None:
    table = ITEM_ENCODERS["collaborative"](ITEMS, 16, torch.from_numpy(text.whitened(12)))
    made = text_map(table)
    assert made is not None
    found = made(torch.from_numpy(text.whitened(12))).norm(dim=1).mean()
    torch.testing.assert_close(found, table.table().norm(dim=1).mean())
    assert text_map(ITEM_ENCODERS["ids"](ITEMS, 16)) is None
    assert not made(torch.zeros(2, 12)).any()


def test_a_new_item_has_the_prior_of_one_that_nobody_bought(
    data: SequenceDataset, text: ItemText, tmp_path: Path
) -> None:
    cold = np.zeros(ITEMS, dtype=bool)
    cold[[3, 20, 39]] = True
    unsold = replace(data, events=np.where(np.isin(data.events, [3, 20, 39]), 4, data.events))
    made = with_prior(proved(unsold, text, "collaborative", cold=cold), unsold, 0.4, 0.0)
    export_recommender(made, tmp_path / "rec", dataset=unsold)
    exported = Recommender.load(tmp_path / "rec")
    assert exported.spec[PRIOR] == [0.4, 0.0]
    history = unsold.histories(unsold.rows("test")[:4], 8)
    torch.testing.assert_close(exported.scorer()(history), made.scorer()(history), atol=1e-4, rtol=1e-4)
    new = pl.DataFrame({"item_id": ["n1"], "title": ["moon castle"], "price": [1.0]})
    extend_export(tmp_path / "rec", new, tmp_path / "rec2")
    biases = Recommender.load(tmp_path / "rec2").model.item_bias
    assert biases is not None
    assert biases[-1] == biases[20] == 0.0
    assert biases[4] > 0.4


@pytest.mark.parametrize("table", ["float32", "int8"])
def test_a_new_item_with_an_old_title_is_the_old_cold_item(
    data: SequenceDataset, text: ItemText, tmp_path: Path, table: str
) -> None:
    cold = np.zeros(ITEMS, dtype=bool)
    cold[[3, 20, 39]] = True
    export_recommender(
        proved(data, text, "collaborative", cold=cold), tmp_path / "rec", table=table, dataset=data
    )
    new = pl.DataFrame({"item_id": ["n1", "n2"], "title": [TITLES[20], TITLES[3]], "price": [1.5, None]})
    extend_export(tmp_path / "rec", new, tmp_path / "rec2")
    made, old = Recommender.load(tmp_path / "rec2"), Recommender.load(tmp_path / "rec")
    rows = made.model.output_encoder.table().detach()
    step = 0.02 if table == "int8" else 1e-4
    torch.testing.assert_close(rows[ITEMS:], rows[[20, 3]], atol=step * float(rows.abs().max()), rtol=0)
    torch.testing.assert_close(rows[:ITEMS], old.model.output_encoder.table().detach(), atol=1e-6, rtol=0)
    assert made.catalogue.raw_ids[ITEMS:] == ["n1", "n2"]
    assert made.cold[-2:].tolist() == [ITEMS, ITEMS + 1]
    assert made.added == 2
    assert made.popularity is not None
    assert made.popularity[-2:].tolist() == [0, 0]
    assert made.dataset_fingerprint != old.dataset_fingerprint
    answer = made.recommend([["n1", "i00"]], k=ITEMS + 2, exclude_seen=False)
    assert {"n1", "n2"} <= set(answer["item_id"])
    extend_export(
        tmp_path / "rec2", pl.DataFrame({"item_id": ["n3"], "title": ["moon castle"]}), tmp_path / "rec3"
    )
    assert Recommender.load(tmp_path / "rec3").added == 3


def test_further_titles_get_the_vectors_they_would_have_had(text: ItemText) -> None:
    found = encode_further(TITLES, TITLES[5:8], "tfidf", size=256)
    np.testing.assert_allclose(found, text.vectors[5:8], atol=1e-5)


@pytest.mark.parametrize("kind", ["pca", "zca", "raw"])
def test_the_way_is_found_by_its_result(data: SequenceDataset, text: ItemText, kind: str) -> None:
    vectors = text.vectors if kind == "raw" else text.whitened(9 if kind == "pca" else None, kind=kind)
    made = TextPath(None, None).proved(text, vectors)
    assert made.encoder["whitening"] == kind
    found = through(torch.from_numpy(text.vectors), made.tensors).numpy()
    np.testing.assert_allclose(found, vectors, atol=1e-3)
    other = TextPath(None, None).proved(text, vectors[::-1].copy())
    assert not other.encoder
    assert "do not follow from the titles" in other.reason


def test_another_encoder_is_refused(data: SequenceDataset, text: ItemText, tmp_path: Path) -> None:
    made = proved(data, text, "collaborative")
    assert made.text is not None
    probes = made.text.tensors["probe_vectors"].flip(0)
    wrong = replace(made.text, tensors={**made.text.tensors, "probe_vectors": probes})
    export_recommender(replace(made, text=wrong), tmp_path / "rec", dataset=data)
    new = pl.DataFrame({"item_id": ["n1"], "title": ["red bear"]})
    with pytest.raises(RunError, match="other vectors than it did at export"):
        extend_export(tmp_path / "rec", new, tmp_path / "rec2")


def test_runs_without_text_are_refused(data: SequenceDataset, text: ItemText, tmp_path: Path) -> None:
    new = pl.DataFrame({"item_id": ["n1"], "title": ["red bear"]})
    export_recommender(students.recommender(data), tmp_path / "ids", dataset=data)
    with pytest.raises(RunError, match="do not come from text"):
        extend_export(tmp_path / "ids", new, tmp_path / "out")
    unproved = students.text_recommender(data, text.whitened(12), "text_only")
    export_recommender(unproved, tmp_path / "unproved", dataset=data)
    with pytest.raises(RunError, match="no text encoder was named"):
        extend_export(tmp_path / "unproved", new, tmp_path / "out")
    students.recommender(data).save(tmp_path / "plain")
    with pytest.raises(RunError, match="recdistill export"):
        extend_export(tmp_path / "plain", new, tmp_path / "out")


def test_wrong_items_are_refused(data: SequenceDataset, text: ItemText, tmp_path: Path) -> None:
    export_recommender(proved(data, text, "text_only"), tmp_path / "rec", dataset=data)
    cases = [
        ({"item_id": ["n1"]}, "no column title"),
        ({"item_id": [], "title": []}, "no new item"),
        ({"item_id": ["i00"], "title": ["x"]}, "in the catalogue already"),
        ({"item_id": ["n1", "n1"], "title": ["x", "y"]}, "occurs twice"),
        ({"item_id": ["n1"], "title": ["  "]}, "has no title"),
    ]
    for columns, message in cases:
        with pytest.raises(DataError, match=message):
            extend_export(tmp_path / "rec", pl.DataFrame(columns), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_recommender_keeps_its_map(data: SequenceDataset, text: ItemText, tmp_path: Path) -> None:
    made = students.text_recommender(data, text.whitened(12), "collaborative", projector="mlp")
    made.save(tmp_path / "rec")
    loaded = Recommender.load(tmp_path / "rec")
    assert loaded.text is not None
    assert loaded.text.output is not None
    assert made.text is not None
    assert made.text.output is not None
    vectors = torch.from_numpy(text.whitened(12))
    assert torch.equal(loaded.text.output(vectors), made.text.output(vectors))
    (tmp_path / "rec" / "text.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(RunError, match="damaged"):
        Recommender.load(tmp_path / "rec")
