import dataclasses
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from safetensors.numpy import load_file

from recdistill.data.catalogue import Catalogue
from recdistill.errors import FingerprintError, KnowledgeError, RunError
from recdistill.knowledge import Knowledge, load_knowledge, save_knowledge
from recdistill.knowledge.arrays import Stream, open_arrays, write_arrays


def same(one, two):
    assert set(one.fields) == set(two.fields)
    assert np.array_equal(one.row_ids, two.row_ids)
    for name, array in one.fields.items():
        assert array.dtype == two.fields[name].dtype
        np.testing.assert_array_equal(array, two.fields[name])


def test_round_trip(dataset, knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    loaded = load_knowledge(tmp_path / "k", dataset, check=True)
    same(loaded, knowledge)
    assert loaded.manifest["teacher"] == "oracle"
    assert loaded.manifest["rows"] == len(knowledge)
    assert loaded.manifest["fields"]["ranking"] == {"dtype": "int32", "shape": list(knowledge.ranking.shape)}
    assert {"created_at", "versions", "title_hash", "metric"} <= set(loaded.manifest)
    assert loaded.rows_for(dataset.row_ids[:3]).covered.all()
    save_knowledge(loaded, tmp_path / "k", overwrite=True)  # over the file that it is mapped from
    same(load_knowledge(tmp_path / "k"), knowledge)


def test_the_file_is_plain_safetensors(knowledge, tmp_path):
    half = dataclasses.replace(knowledge, item_embeddings=knowledge.item_embeddings.astype(np.float16))
    save_knowledge(half, tmp_path / "k")
    tensors = load_file(tmp_path / "k" / "knowledge.safetensors")
    assert set(tensors) == {"row_ids", *half.fields}
    assert tensors["item_embeddings"].dtype == np.float16
    np.testing.assert_array_equal(tensors["ranking"], knowledge.ranking)


def test_loaded_arrays_cannot_be_written(knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    with pytest.raises(ValueError, match="read-only"):
        load_knowledge(tmp_path / "k").ranking[0, 0] = 1


def test_no_rows(dataset, tmp_path):
    only_items = Knowledge(np.empty(0, np.int64), dataset.item_count, item_embeddings=np.ones((30, 2)))
    save_knowledge(only_items, tmp_path / "k", dataset=dataset)
    assert len(load_knowledge(tmp_path / "k", dataset)) == 0


def test_another_dataset_is_refused(knowledge, make_ring, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    with pytest.raises(FingerprintError, match="was made from dataset"):
        load_knowledge(tmp_path / "k", make_ring(seed=9))


def test_other_titles_are_refused(dataset, knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    frame = dataset.catalogue.frame.with_columns(title=dataset.catalogue.frame["title"] + "!")
    renamed = dataclasses.replace(dataset, catalogue=Catalogue(frame))
    assert renamed.fingerprint == dataset.fingerprint
    with pytest.raises(KnowledgeError, match="other titles"):
        load_knowledge(tmp_path / "k", renamed)


def test_the_dataset_must_be_named(dataset, knowledge, tmp_path):
    anonymous = dataclasses.replace(knowledge, manifest={"teacher": "x", "metric": "l2"})
    with pytest.raises(KnowledgeError, match="does not say which dataset"):
        save_knowledge(anonymous, tmp_path / "k")
    save_knowledge(anonymous, tmp_path / "k", dataset=dataset)
    load_knowledge(tmp_path / "k", dataset)


def test_wrong_contents_are_not_written(dataset, knowledge, tmp_path):
    ranks = np.argsort(np.argsort(np.random.default_rng(0).random((len(knowledge), 30)), axis=1), axis=1)
    wrong = dataclasses.replace(knowledge, ranking=ranks, ranking_distance=np.sqrt(ranks + 1.0)[:, ::-1])
    with pytest.raises(KnowledgeError):
        save_knowledge(wrong, tmp_path / "k", dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_on_demand(knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    with pytest.raises(RunError, match="--overwrite"):
        save_knowledge(knowledge, tmp_path / "k")


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_truncated_file_is_refused(knowledge, tmp_path, keep):
    save_knowledge(knowledge, tmp_path / "k")
    path = tmp_path / "k" / "knowledge.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(KnowledgeError, match=r"is damaged .*make it anew"):
        load_knowledge(tmp_path / "k")


def test_a_missing_file_and_a_foreign_folder(knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    (tmp_path / "k" / "knowledge.safetensors").unlink()
    with pytest.raises(KnowledgeError, match=r"knowledge.safetensors does not exist"):
        load_knowledge(tmp_path / "k")
    with pytest.raises(RunError, match="is no knowledge folder"):
        load_knowledge(tmp_path)


def test_manifest_and_file_must_agree(knowledge, tmp_path):
    save_knowledge(knowledge, tmp_path / "k")
    path = tmp_path / "k" / "manifest.json"
    manifest = json.loads(path.read_text())
    for wrong in ({"rows": 3}, {"fields": {"ranking": manifest["fields"]["ranking"]}}):
        path.write_text(json.dumps({**manifest, **wrong}))
        with pytest.raises(KnowledgeError, match="interrupted"):
            load_knowledge(tmp_path / "k")


def test_streams_write_what_arrays_write(tmp_path):
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    ids = np.arange(10)
    write_arrays(tmp_path / "a", {"ids": ids, "table": table})
    pieces = Stream(table.dtype, table.shape, lambda: iter([table[:3], table[3:3], table[3:]]))
    write_arrays(tmp_path / "b", {"table": pieces, "ids": ids})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(open_arrays(tmp_path / "a")["table"], table)


def test_a_hundred_megabytes_are_mapped_and_not_read(tmp_path):
    table = np.ones((100_000, 256), np.float32)  # 102 MB
    write_arrays(tmp_path / "knowledge.safetensors", {"row_ids": np.arange(2), "item_embeddings": table})
    fields = {"item_embeddings": {"dtype": "float32", "shape": [100_000, 256]}}
    manifest = {"kind": "knowledge", "schema": 1, "rows": 2, "item_count": 100_000, "fields": fields}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    code = f"""
        from pathlib import Path
        from recdistill.knowledge import load_knowledge
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
        before = resident()
        knowledge = load_knowledge({str(tmp_path)!r})
        mapped = resident() - before
        knowledge.item_embeddings.sum()
        print(mapped, resident() - before)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    mapped, read = map(float, run.stdout.split())
    assert mapped < 10
    assert read > 90
