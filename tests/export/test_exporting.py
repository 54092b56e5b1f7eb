"""Exported folders: graphs against torch, tables, what a folder holds, what is refused."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

import export_students as students
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, FingerprintError, RunError
from recdistill.export import Recommender, export_recommender
from recdistill.export import agreement as agreement_module
from recdistill.export.graph import Graph
from recdistill.export.tables import pack_table, unpack_table
from recdistill.runs import file_checksum, read_json, write_json
from shop import ITEMS, ring_dataset


@pytest.fixture(scope="module")
def data() -> SequenceDataset:
    return ring_dataset()


@pytest.fixture(scope="module")
def exported(data: SequenceDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "rec"
    export_recommender(students.recommender(data), folder, dataset=data)
    return folder


def copy_of(folder: Path, out: Path) -> Path:
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def resign(folder: Path) -> None:
    """Write the checksums of the files as they are now: what somebody does who means harm."""
    manifest = read_json(folder / "manifest.json")
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"sha256": file_checksum(path), "bytes": path.stat().st_size}
    write_json(folder / "manifest.json", manifest)


def answers(folder: Path, history: np.ndarray, k: int, *, exclude: bool) -> tuple[np.ndarray, np.ndarray]:
    graph = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    feeds = {"history": history, "k": np.array(k), "exclude_seen": np.array(exclude)}
    items, scores = graph.run(["items", "scores"], feeds)
    return items, scores


HISTORIES = [[], [5], [1, 2, 3], [7] * 8, list(range(20, 40)), list(range(8))]


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("name", sorted(students.STUDENT_SPECS))
def test_graphs_answer_as_torch_does(data: SequenceDataset, tmp_path: Path, name: str, random: bool) -> None:
    """Against the student itself, history by history: empty, one item, repeated, longer than L."""
    made = students.recommender(data, name, random=random)
    report = export_recommender(made, tmp_path / "rec", dataset=data)
    assert report.agreement["source"] == "histories of ring"
    assert 0 < report.agreement["scores"] < 1e-5
    encoder = onnxruntime.InferenceSession(str(tmp_path / "rec" / "encoder.onnx"))
    width = max(map(len, HISTORIES))
    grid = np.array([line + [-1] * (width - len(line)) for line in HISTORIES])
    items, scores = answers(tmp_path / "rec", grid, ITEMS, exclude=True)
    for row, history in enumerate(HISTORIES):
        newest = torch.tensor([history[-students.LENGTH :] or [-1]])
        with torch.no_grad():
            hidden = made.model.encode(newest, (newest >= 0).sum(1)).numpy()
            expected = made.model.score(newest)[0].numpy()
        found = encoder.run(["hidden"], {"history": newest.numpy()})[0]
        np.testing.assert_allclose(found, hidden, atol=2e-5)
        expected[history] = -np.inf
        np.testing.assert_allclose(scores[row], -np.sort(-expected), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(expected[items[row]], scores[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("table", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", ["sasrec-paper", "gru4rec-modern"])
def test_every_table_comes_back(data: SequenceDataset, tmp_path: Path, name: str, table: str) -> None:
    made = students.recommender(data, name)
    report = export_recommender(made, tmp_path / "rec", table=table, dataset=data)
    assert max(report.agreement["hidden"], report.agreement["scores"]) < 1e-4
    loaded = Recommender.load(tmp_path / "rec")
    scores, whole = (one.scorer()(data.histories(data.rows("test"), 8)).numpy() for one in (loaded, made))
    error = np.abs(scores - whole).max() / np.abs(whole).max()
    assert error <= {"float32": 0, "float16": 2e-3, "int8": 5e-2}[table]
    assert (error == 0) == (table == "float32")
    assert [loss.split for loss in report.losses] == ([] if table == "float32" else ["valid", "test"])
    card = (tmp_path / "rec" / "README.md").read_text()
    assert ("costs" in card) == (table != "float32")
    tensors = load_file(tmp_path / "rec" / "model.safetensors")
    assert str(tensors["item_table"].dtype) == table
    assert ("input_table" in tensors) == (name == "sasrec-paper")


def test_measured_loss_is_the_difference_of_two_evaluations(data: SequenceDataset, tmp_path: Path) -> None:
    made = students.recommender(data)
    report = export_recommender(made, tmp_path / "rec", table="int8", dataset=data)
    packed = Recommender.load(tmp_path / "rec")
    for loss in report.losses:
        both = [one.evaluate(data, loss.split, filter_seen=False).metrics() for one in (packed, made)]
        for found in loss.comparisons:
            assert found.difference == pytest.approx(both[0][found.metric] - both[1][found.metric])
    assert 0 < report.losses[0].overlap <= 1


def test_int8_is_within_half_a_step_of_its_row() -> None:
    table = students.like_trained(50, 6, 1).numpy()
    table[3] = 0
    packed = pack_table(table, "int8", "item")
    error = np.abs(unpack_table(packed, "item") - table)
    assert (error <= np.abs(table).max(1, keepdims=True) / 254 * 1.001).all()
    assert not unpack_table(packed, "item")[3].any()


def test_what_a_folder_holds(data: SequenceDataset, exported: Path) -> None:
    names = {
        "README.md",
        "config.json",
        "encoder.onnx",
        "items.parquet",
        "items.safetensors",
        "manifest.json",
        "model.onnx",
    }
    assert {path.name for path in exported.iterdir()} == names | {"model.safetensors"}
    config = read_json(exported / "config.json")
    assert config["item_count"] == ITEMS
    assert (config["length"], config["hidden_size"], config["pad"], config["tied"]) == (8, 16, -1, True)
    items = pl.read_parquet(exported / "items.parquet")
    assert items.columns == ["index", "item_id", "title", "popularity"]
    assert items["popularity"].to_list() == data.popularity.tolist()
    manifest = read_json(exported / "manifest.json")
    assert manifest["kind"] == "recommender-export"
    assert manifest["dataset_fingerprint"] == data.fingerprint
    assert set(manifest["files"]) == names - {"manifest.json"} | {"model.safetensors"}


def test_without_a_dataset_histories_are_drawn_and_said_to_be(data: SequenceDataset, tmp_path: Path) -> None:
    made = replace(students.recommender(data), popularity=None)
    report = export_recommender(made, tmp_path / "rec", table="int8")
    assert report.agreement["source"] == "histories drawn at random"
    assert "not measured" in (tmp_path / "rec" / "README.md").read_text()
    assert pl.read_parquet(tmp_path / "rec" / "items.parquet")["popularity"].null_count() == ITEMS
    assert Recommender.load(tmp_path / "rec").popularity is None


def test_seen_items_and_pads_leave_the_others_alone(exported: Path) -> None:
    grid = np.array([[3, 4, -1, -1], [0, -1, -1, -1]])
    free, free_scores = answers(exported, grid, ITEMS, exclude=False)
    kept, kept_scores = answers(exported, grid, ITEMS, exclude=True)
    for row, seen in enumerate([{3, 4}, {0}]):
        rest = [item for item in free[row] if item not in seen]
        assert kept[row][: len(rest)].tolist() == rest
        assert np.isneginf(kept_scores[row][len(rest) :]).all()
    assert np.isfinite(free_scores).all()


def test_a_graph_that_answers_otherwise_is_not_left_behind(
    data: SequenceDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Graph.layer_norm
    monkeypatch.setattr(Graph, "layer_norm", lambda self, value, name, eps: whole(self, value, name, 0.1))
    with pytest.raises(RunError, match=r"differ from the student by"):
        export_recommender(students.recommender(data), tmp_path / "rec", dataset=data)
    assert not list(tmp_path.iterdir())


def test_the_check_sees_items_that_are_swapped() -> None:
    expected = np.array([[3.0, 2.0, 1.0]])
    right = agreement_module._answer_difference(np.array([[0, 1]]), np.array([[3.0, 2.0]]), expected)
    wrong = agreement_module._answer_difference(np.array([[0, 2]]), np.array([[3.0, 2.0]]), expected)
    assert (right, wrong) == (0, pytest.approx(1 / 3))
    nan = agreement_module._answer_difference(np.array([[0, 1]]), np.array([[np.nan, 2.0]]), expected)
    assert not nan <= 1e-4


def test_tables_too_large_for_one_message_go_beside_the_graph(tmp_path: Path) -> None:
    weights = {"item_table": np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)}
    graph = Graph(weights)
    graph.rename(graph.add("Gather", graph.weight("item_table"), "history"), "rows")
    shapes = [("history", "INT64", ["n"])], [("rows", "FLOAT", ["n", 4])]
    graph.save(tmp_path / "g.onnx", *shapes, external_above=1000)
    assert (tmp_path / "g.onnx.data").stat().st_size >= weights["item_table"].nbytes
    rows = onnxruntime.InferenceSession(str(tmp_path / "g.onnx")).run(None, {"history": np.array([7])})[0]
    np.testing.assert_array_equal(rows, weights["item_table"][[7]])


def test_wrong_requests(data: SequenceDataset, tmp_path: Path, exported: Path) -> None:
    made = students.recommender(data)
    with pytest.raises(ConfigError, match="int8"):
        export_recommender(made, tmp_path / "rec", table="int4")
    with pytest.raises(FingerprintError):
        export_recommender(made, tmp_path / "rec", dataset=ring_dataset(seed=4))
    with pytest.raises(RunError, match="already exists"):
        export_recommender(made, exported)
    with torch.no_grad():
        made.model.student.final_norm.weight[0] = torch.nan
    with pytest.raises(RunError, match="not finite"):
        export_recommender(made, tmp_path / "rec")
    made = students.recommender(data)
    with torch.no_grad():
        made.model.item_encoder.weight[0, 0] = 1e6
    with pytest.raises(RunError, match="65504"):
        export_recommender(made, tmp_path / "rec", table="float16")
    assert not (tmp_path / "rec").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "items.parquet", "config.json", "model.onnx"])
def test_truncated_and_changed_files_are_refused(exported: Path, tmp_path: Path, name: str) -> None:
    folder = copy_of(exported, tmp_path / "rec")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="bytes"):
        Recommender.load(folder)
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match="checksum"):
        Recommender.load(folder)
    (folder / name).unlink()
    with pytest.raises(RunError, match="missing"):
        Recommender.load(folder)


def _lying_header(path: Path, name: str, **changes: object) -> None:
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    header[name] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**9, 16]},
        {"shape": [16, ITEMS]},
        {"dtype": "F16"},
        {"dtype": "I32"},
        {"data_offsets": [0, 10**15]},
        {"data_offsets": [0, 4]},
    ],
)
def test_a_header_that_lies_is_refused(exported: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    """Also where manifest and checksums were made to agree with it."""
    folder = copy_of(exported, tmp_path / "rec")
    _lying_header(folder / "model.safetensors", "item_table", **changes)
    resign(folder)
    with pytest.raises(RunError, match=r"damaged|fit together"):
        Recommender.load(folder)


def test_a_header_longer_than_the_file_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path / "rec")
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + raw[8:])
    resign(folder)
    with pytest.raises(RunError, match="damaged"):
        Recommender.load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"item_count": ITEMS + 1},
        {"student": "os.system"},
        {"options": {"embedding_size": 10**9}},
        {"options": {"embedding_size": 16, "variant": "modern", "max_length": 10**12}},
        {"options": {"no_such_option": 1}},
        {"options": []},
        {"length": 0},
        {"length": "many"},
        {"cold": [ITEMS]},
        {"added": ITEMS},
        {"tied": False},
        {"bias": True},
        {"table": "int8"},
        {"hidden_size": None},
    ],
)
def test_a_config_that_lies_is_refused(exported: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    folder = copy_of(exported, tmp_path / "rec")
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    resign(folder)
    with pytest.raises(RunError, match=r"fit together|damaged"):
        Recommender.load(folder)


def test_nan_and_strange_names_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = copy_of(exported, tmp_path / "rec")
    tensors = load_file(folder / "model.safetensors")
    tensors["item_table"][4, 2] = np.nan
    save_file(tensors, folder / "model.safetensors")
    resign(folder)
    with pytest.raises(RunError, match="item_table holds 1 of 640 numbers"):
        Recommender.load(folder)
    manifest = read_json(folder / "manifest.json")
    manifest["files"]["../outside"] = {"sha256": "", "bytes": 0}
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(RunError, match=r"names the file '\.\./outside'"):
        Recommender.load(folder)
    write_json(folder / "manifest.json", {**manifest, "format": 99})
    with pytest.raises(RunError, match="format 99"):
        Recommender.load(folder)
