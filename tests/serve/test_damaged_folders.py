"""A folder that is not whole, or not what it says, is refused with a sentence, and never crashes the reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from exported_folder import header, sign, weights, write_export, write_header
from recdistill.errors import RecdistillError, RunError
from recdistill.runs import read_json, write_json
from recdistill.serve import Engine

FILES = ["model.safetensors", "encoder.onnx", "items.safetensors", "config.json", "manifest.json"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "rec"
    write_export(folder)
    return folder


@pytest.fixture
def rec(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "rec"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.98])
@pytest.mark.parametrize("signed", [False, True])
def test_truncated_files(rec: Path, name: str, keep: float, signed: bool) -> None:
    data = (rec / name).read_bytes()
    (rec / name).write_bytes(data[: int(keep * len(data))])
    if signed and name != "manifest.json":
        sign(rec)  # even with a checksum that fits, the content is looked at
    with pytest.raises(RunError):
        Engine.load(rec)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_and_folders_in_their_place(rec: Path, name: str) -> None:
    (rec / name).unlink()
    with pytest.raises(RecdistillError):
        Engine.load(rec)
    (rec / name).mkdir()
    with pytest.raises((RecdistillError, OSError)):
        Engine.load(rec)


def test_one_flipped_bit(rec: Path) -> None:
    path = rec / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RunError, match=r"model\.safetensors is not the file of the manifest"):
        Engine.load(rec)


def _offsets(start: int, stop: int) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["item_table"]["data_offsets"] = [start, stop]

    return change


def _shape(*shape: int) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["item_table"]["shape"] = list(shape)

    return change


def _dtype(name: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["item_table"]["dtype"] = name

    return change


@pytest.mark.parametrize(
    "change",
    [
        _offsets(0, 1 << 60),
        _offsets(1 << 62, (1 << 62) + 3840),
        _offsets(-8, 3832),
        _offsets(3840, 0),
        _offsets(0, 16),
        _shape(1 << 40, 1 << 40),
        _shape(-120, 8),
        _shape(120, 9),
        _shape(),
        _dtype("F64"),
        _dtype("I9"),
        lambda content: content.update(item_table=5),
        lambda content: content.pop("item_table"),
        lambda content: content.update(item_bias={**content["item_table"]}),
    ],
)
def test_a_header_that_lies(rec: Path, change: Callable[[dict], None]) -> None:
    content, data = header(rec / "model.safetensors")
    change(content)
    write_header(rec / "model.safetensors", content, data)
    sign(rec)
    with pytest.raises(RunError):
        Engine.load(rec)


@pytest.mark.parametrize("size", [0, 1 << 20, 1 << 63, (1 << 64) - 1])
def test_a_header_of_a_lying_size(rec: Path, size: int) -> None:
    path = rec / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    sign(rec)
    with pytest.raises(RunError, match="no valid safetensors file"):
        Engine.load(rec)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    arrays = weights(0)
    arrays["item_table"][3, 3] = np.nan
    write_export(tmp_path / "rec", arrays=arrays)
    with pytest.raises(RunError, match="not finite"):
        Engine.load(tmp_path / "rec")
    arrays = weights(0)
    arrays["student.mix"][:] = np.nan
    write_export(tmp_path / "rec", arrays=arrays)
    with pytest.raises(RunError, match="not finite"):
        Engine.load(tmp_path / "rec")


def test_an_encoder_of_another_width(rec: Path, tmp_path: Path) -> None:
    write_export(tmp_path / "other", arrays=weights(0, hidden=4))
    shutil.copy(tmp_path / "other" / "encoder.onnx", rec)
    sign(rec)
    with pytest.raises(RunError):
        Engine.load(rec)


def test_a_graph_that_reads_another_file(rec: Path) -> None:
    import onnx
    from onnx.external_data_helper import set_external_data

    whole = (rec / "encoder.onnx").read_bytes()
    for place in ("../../etc/passwd", "/etc/passwd", "model.safetensors"):
        model = onnx.load_from_string(whole)
        mix = next(one for one in model.graph.initializer if one.name == "mix")
        set_external_data(mix, place, 0, 256)
        mix.ClearField("raw_data")
        mix.data_location = onnx.TensorProto.EXTERNAL
        (rec / "encoder.onnx").write_bytes(model.SerializeToString())
        sign(rec)
        with pytest.raises(RunError, match=r"encoder\.onnx cannot be loaded"):
            Engine.load(rec)


@pytest.mark.parametrize("length", [0, -1, "6", True, None, 1.5])
def test_a_length_that_is_none(rec: Path, length: object) -> None:
    write_json(rec / "config.json", {**read_json(rec / "config.json"), "length": length})
    sign(rec)
    with pytest.raises(RunError, match="length"):
        Engine.load(rec)


def test_columns_that_do_not_fit(rec: Path) -> None:
    arrays = load_file(rec / "items.safetensors")
    content, _ = header(rec / "items.safetensors")
    for change in (
        {"ends:title": arrays["ends:title"][::-1].copy()},
        {"ends:title": arrays["ends:title"] + 5},
        {"ends:title": arrays["ends:title"][:-1]},
        {"text:title": np.full_like(arrays["text:title"], 0xFF)},
        {"ends:title": arrays["ends:title"].astype(np.float64)},
    ):
        save_file({**arrays, **change}, rec / "items.safetensors", metadata=content["__metadata__"])
        sign(rec)
        with pytest.raises(RunError):
            Engine.load(rec)


def test_an_older_or_another_kind_of_folder(rec: Path) -> None:
    manifest = read_json(rec / "manifest.json")
    for change in ({"kind": "run"}, {"schema": 99}, {"files": None}, {"files": {}}):
        write_json(rec / "manifest.json", {**manifest, **change})
        with pytest.raises(RunError):
            Engine.load(rec)
