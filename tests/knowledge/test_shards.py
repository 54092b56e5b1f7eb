import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from recdistill.errors import KnowledgeError
from recdistill.knowledge import ShardWriter, load_knowledge
from recdistill.runs import read_manifest

MANIFEST = {"teacher": "slow", "metric": "l2", "dataset_fingerprint": "abc", "options": {"k": 4}}
ROWS = np.arange(0, 40, 2)
TABLE = np.linspace(0, 1, 60, dtype=np.float32).reshape(30, 2)


def answers(rows):
    """A deterministic teacher: the answer depends on the row alone."""
    ranking = np.stack([np.random.default_rng(int(r)).permutation(30)[:4] for r in rows]).astype(np.int32)
    distance = np.stack([np.sort(np.random.default_rng([1, int(r)]).random(4)) for r in rows])
    queries = np.stack([np.random.default_rng([2, int(r)]).random(2) for r in rows]).astype(np.float16)
    return {"ranking": ranking, "ranking_distance": distance, "query_embeddings": queries}


def ask(writer, rows, batch):
    pending = writer.pending(rows)
    for start in range(0, len(pending), batch):
        writer.append(pending[start : start + batch], **answers(pending[start : start + batch]))


def finished(folder):
    return (folder / "knowledge.safetensors").read_bytes()


@pytest.fixture
def whole(tmp_path):
    writer = ShardWriter(tmp_path / "whole", 30, MANIFEST)
    ask(writer, ROWS, 100)
    writer.finish(TABLE)
    return tmp_path / "whole"


def test_one_pass(whole):
    knowledge = load_knowledge(whole, check=True)
    assert knowledge.row_ids.tolist() == ROWS.tolist()
    for name, expected in answers(ROWS).items():
        np.testing.assert_allclose(getattr(knowledge, name), expected, rtol=1e-6)
    np.testing.assert_array_equal(knowledge.item_embeddings, TABLE)
    assert read_manifest(whole, "knowledge")["teacher"] == "slow"
    assert not (whole / "shards").exists()


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_interrupted_and_shuffled_work_gives_the_same_bytes(whole, tmp_path, stop, monkeypatch):
    monkeypatch.setattr("recdistill.knowledge.lists.CHUNK_ELEMENTS", 12)
    shuffled = np.random.default_rng(stop).permutation(ROWS)
    writer = ShardWriter(tmp_path / "k", 30, MANIFEST)
    for part in np.array_split(shuffled, 6)[:stop]:
        writer.append(part, **answers(part))
    again = ShardWriter(tmp_path / "k", 30, MANIFEST)
    assert len(again.pending(ROWS)) == len(ROWS) - sum(len(p) for p in np.array_split(shuffled, 6)[:stop])
    ask(again, ROWS, 3)
    again.finish(TABLE)
    assert finished(tmp_path / "k") == finished(whole)


def test_a_finished_folder_takes_more_rows(whole, tmp_path):
    folder = tmp_path / "k"
    first = ShardWriter(folder, 30, MANIFEST)
    ask(first, ROWS[:7], 4)
    first.finish(TABLE)
    second = ShardWriter(folder, 30, MANIFEST)
    assert second.pending(ROWS).tolist() == ROWS[7:].tolist()
    ask(second, ROWS, 4)
    second.finish()
    assert finished(folder) == finished(whole)


def test_a_row_answered_twice_keeps_its_first_answer(tmp_path):
    writer = ShardWriter(tmp_path / "k", 30, MANIFEST)
    writer.append([4, 2], target_rank=[1, 2])
    writer.append([2, 6], target_rank=[9, 3])
    assert writer.finish().target_rank.tolist() == [2, 1, 3]


def test_killed_at_any_moment_it_goes_on(whole, tmp_path):
    """The process kills itself while it writes its third shard, then while it merges."""
    code = """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import test_shards as here
        from recdistill.knowledge import ShardWriter, arrays, shards
        folder, moment = Path(sys.argv[1]), sys.argv[3]
        write, written = arrays.write_arrays, []
        def write_arrays(path, content):
            written.append(path)
            if (moment == "shard" and len(written) == 3) or (moment == "merge" and path.parent == folder):
                content = {**content, "row_ids": arrays.Stream(here.ROWS.dtype, here.ROWS.shape, die)}
            write(path, content)
        def die():
            os.kill(os.getpid(), signal.SIGKILL)
        shards.write_arrays = write_arrays
        writer = ShardWriter(folder, 30, here.MANIFEST)
        here.ask(writer, here.ROWS, 4)
        writer.finish(here.TABLE)
    """
    folder = tmp_path / "k"
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for moment in ("shard", "merge"):
        run = subprocess.run([*command, moment], capture_output=True, text=True, env=environment)
        assert run.returncode == -signal.SIGKILL, run.stderr
    writer = ShardWriter(folder, 30, MANIFEST)
    assert not len(writer.pending(ROWS))
    writer.finish(TABLE)
    assert finished(folder) == finished(whole)


def test_other_settings_are_refused(whole, tmp_path):
    with pytest.raises(KnowledgeError, match="other settings"):
        ShardWriter(whole, 30, {**MANIFEST, "options": {"k": 5}})
    ShardWriter(tmp_path / "begun", 30, MANIFEST)
    with pytest.raises(KnowledgeError, match="other settings"):
        ShardWriter(tmp_path / "begun", 31, MANIFEST)
    with pytest.raises(KnowledgeError, match="does not say which dataset"):
        ShardWriter(tmp_path / "new", 30, {"teacher": "slow"})


def test_shards_hold_the_same_checked_fields(tmp_path):
    writer = ShardWriter(tmp_path / "k", 30, MANIFEST)
    with pytest.raises(KnowledgeError, match="holds no answers"):
        writer.finish()
    with pytest.raises(KnowledgeError, match="cannot hold 'item_embeddings'"):
        writer.append([1], item_embeddings=TABLE)
    with pytest.raises(KnowledgeError, match="lists item 3 twice"):
        writer.append([1], ranking=[[3, 3]])
    with pytest.raises(KnowledgeError, match="ascending and unique"):
        writer.append([1, 1], target_rank=[0, 0])
    writer.append([1], ranking=[[3, 4]])
    with pytest.raises(KnowledgeError, match=r"ranking int32 \[3\].*ranking int32 \[2\]"):
        writer.append([2], ranking=[[3, 4, 5]])
    assert json.loads((tmp_path / "k" / "shards" / "manifest.json").read_text())["kind"] == "shards"
