"""Answers on disk: killed anywhere, resumed, and the same file in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recdistill.errors import KnowledgeError
from recdistill.teachers.backends import Generation, GenerationRequest, ScriptedGenerator
from recdistill.teachers.generation.answers import GenerationStore, generate_rows, title_requests
from recdistill.teachers.generation.lines import load_generations, whole_lines

SETTINGS = {"model": "m", "decode": {"beams": 2}}
ROWS = [31, 7, 12, 99, 5, 64, 8, 2, 77, 40]


def requests(rows=ROWS):
    return [GenerationRequest(row, f"what after {row}?") for row in rows]


def answer(row):
    return Generation(row, (f'"Té {row}"\n', "ü"), (-row / 7, -row / 3))


SCRIPT = {row: answer(row) for row in ROWS}


def whole(folder):
    generate_rows(ScriptedGenerator(SCRIPT), requests(), GenerationStore(folder, SETTINGS))
    return (folder / "generations.jsonl").read_bytes()


@pytest.fixture
def expected(tmp_path):
    return whole(tmp_path / "whole")


def test_the_file_is_sorted_and_holds_what_was_written(tmp_path, expected):
    lines = [json.loads(line) for line in expected.decode().splitlines()]
    assert [line["row_id"] for line in lines] == sorted(ROWS)
    assert lines[0] == {
        "row_id": 2,
        "prompt": GenerationRequest(2, "what after 2?").prompt_hash,
        "texts": ['"Té 2"\n', "ü"],
        "scores": [round(-2 / 7, 6), round(-2 / 3, 6)],
    }
    found = load_generations(tmp_path / "whole")
    assert list(found) == sorted(ROWS)
    assert found[7].texts == SCRIPT[7].texts
    assert not (tmp_path / "whole" / "shards").exists()


class KilledError(Exception):
    pass


class Dying(ScriptedGenerator):
    def __init__(self, after):
        super().__init__(SCRIPT)
        self.after, self.asked = after, []

    def generate(self, requests, progress=None):
        for count, found in enumerate(super().generate(requests)):
            if count == self.after:
                raise KilledError
            self.asked.append(found.key)
            yield found


@pytest.mark.parametrize("seed", range(6))
def test_torn_at_any_byte_and_resumed_the_file_is_the_same(tmp_path, expected, seed):
    rng = np.random.default_rng(seed)
    folder, rounds = tmp_path / "g", 0
    while not (folder / "generations.jsonl").exists() or rounds < 3:
        rounds += 1
        before = set(load_generations(folder)) if list(folder.glob("shards/*")) else set()
        made = Dying(int(rng.integers(1, 5)))
        try:
            generate_rows(made, requests(), GenerationStore(folder, SETTINGS))
        except KilledError:
            pass
        else:
            break
        assert not before & set(made.asked)
        newest = sorted(folder.glob("shards/*.jsonl"))[-1]
        os.truncate(newest, int(rng.integers(0, newest.stat().st_size + 1)))
    assert (folder / "generations.jsonl").read_bytes() == expected


def test_every_cut_of_a_shard_loses_at_most_the_line_that_was_cut(tmp_path, expected):
    store = GenerationStore(tmp_path / "g", SETTINGS)
    for request in requests()[:3]:
        store.append(request, answer(request.key))
    store.close()
    (shard,) = (tmp_path / "g" / "shards").glob("*.jsonl")
    data = shard.read_bytes()
    ends = [start + len(line) for start, line in whole_lines(shard)]
    for size in range(len(data) + 1):
        shard.write_bytes(data[:size])
        assert len(GenerationStore(tmp_path / "g", SETTINGS)) == sum(end <= size for end in ends)


def test_a_killed_process_goes_on_where_it_was(tmp_path, expected):
    program = """
import sys, time
from teachers_generations import SCRIPT, SETTINGS, requests
from recdistill.teachers.backends import ScriptedGenerator
from recdistill.teachers.generation.answers import GenerationStore, generate_rows

class Slow(ScriptedGenerator):
    def generate(self, requests, progress=None):
        for found in super().generate(requests):
            time.sleep(0.05)
            yield found

generate_rows(Slow(SCRIPT), requests(), GenerationStore(sys.argv[1], SETTINGS))
"""
    (tmp_path / "teachers_generations.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment)
    shard = folder / "shards" / "00000.jsonl"
    for _ in range(1200):
        if (shard.exists() and shard.read_bytes().count(b"\n") >= 3) or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = len(ROWS) - len(GenerationStore(folder, SETTINGS))
    assert 0 < left < len(ROWS)
    made = Dying(99)
    report = generate_rows(made, requests(), GenerationStore(folder, SETTINGS))
    assert len(made.asked) == left == report.rows - report.resumed
    assert (folder / "generations.jsonl").read_bytes() == expected


def test_more_rows_can_be_asked_later(tmp_path, expected):
    folder = tmp_path / "g"
    generate_rows(ScriptedGenerator(SCRIPT), requests(ROWS[:4]), GenerationStore(folder, SETTINGS))
    seen = []
    report = generate_rows(
        ScriptedGenerator(SCRIPT), requests(), GenerationStore(folder, SETTINGS), progress=seen.append
    )
    assert (folder / "generations.jsonl").read_bytes() == expected
    assert (report.resumed, report.answered) == (4, 10)
    assert seen == [4, 1, 1, 1, 1, 1, 1]
    again = generate_rows(Dying(0), requests(), GenerationStore(folder, SETTINGS))
    assert again.resumed == 10
    assert (folder / "generations.jsonl").read_bytes() == expected


def test_a_row_keeps_its_first_answer(tmp_path):
    store = GenerationStore(tmp_path, SETTINGS)
    store.append(requests()[0], Generation(31, ("first",)))
    store.append(requests()[0], Generation(31, ("second",)))
    store.close()
    (tmp_path / "shards" / "00007.jsonl").write_bytes(
        (tmp_path / "shards" / "00000.jsonl").read_bytes().replace(b"first", b"third")
    )
    assert store.read()[31].texts == ("first",)
    store.finish()
    assert load_generations(tmp_path / "generations.jsonl")[31].texts == ("first",)


class Batched(ScriptedGenerator):
    """Answers in pairs; the answer tells who was asked together."""

    def batches(self, requests):
        ordered = sorted(requests, key=lambda request: request.key)
        return [ordered[i : i + 2] for i in range(0, len(ordered), 2)]

    def generate(self, requests, progress=None):
        for batch in self.batches(requests):
            for request in batch:
                yield Generation(request.key, (str([r.key for r in batch]),))


def test_a_batch_that_lacks_a_row_is_asked_again_whole(tmp_path):
    def run(folder):
        generate_rows(Batched({}), requests(), GenerationStore(folder, SETTINGS))
        return (folder / "generations.jsonl").read_bytes()

    expected = run(tmp_path / "a")
    store = GenerationStore(tmp_path / "b", SETTINGS)
    for answer in Batched({}).generate(requests()):
        if answer.key in (2, 7, 8, 12):  # the batches are [2, 5] [7, 8] [12, 31] ...
            store.append(GenerationRequest(answer.key, f"what after {answer.key}?"), answer)
    store.close()
    assert run(tmp_path / "b") == expected


def test_other_settings_and_other_prompts_are_refused(tmp_path, expected):
    with pytest.raises(KnowledgeError, match=r"other settings \(decode differ\).*--overwrite"):
        GenerationStore(tmp_path / "whole", {**SETTINGS, "decode": {"beams": 3}})
    store = GenerationStore(tmp_path / "whole", SETTINGS)
    with pytest.raises(KnowledgeError, match=r"row 31 .* another prompt"):
        store.pending([GenerationRequest(31, "and now?")])
    with pytest.raises(KnowledgeError, match="same row id"):
        generate_rows(ScriptedGenerator(SCRIPT), requests([5, 5]), store)
    with pytest.raises(KnowledgeError, match="holds no answers"):
        GenerationStore(tmp_path / "empty", SETTINGS).finish()
    with pytest.raises(KnowledgeError, match="holds no generations"):
        load_generations(tmp_path / "empty")


@pytest.mark.parametrize(
    "line",
    [
        b"{nonsense\n",
        b'{"row_id": 1}\n',
        b'{"row_id": "1", "prompt": "", "texts": [], "scores": []}\n',
        b"[]\n",
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "00000.jsonl").write_bytes(line)
    with pytest.raises(KnowledgeError, match="damaged line"):
        GenerationStore(tmp_path, SETTINGS)


def test_replay_gives_what_was_written_without_the_model(tmp_path, expected):
    replay = ScriptedGenerator(tmp_path / "whole")
    assert [a.texts for a in replay.generate(requests())] == [SCRIPT[row].texts for row in ROWS]
    assert replay.fingerprint == ScriptedGenerator(tmp_path / "whole" / "generations.jsonl").fingerprint
    assert replay.fingerprint != ScriptedGenerator({7: "Up"}).fingerprint
    (missing,) = replay.generate([GenerationRequest(1, "x")])
    assert missing.failed
    report = generate_rows(replay, requests([*ROWS, 1000]), GenerationStore(tmp_path / "again", SETTINGS))
    assert (report.answered, report.failed) == (10, 1)
    assert (tmp_path / "again" / "generations.jsonl").read_bytes() == expected


def test_requests_tell_the_last_titles_that_exist(walks):
    rows = walks.rows("train")[:30]
    found = title_requests(walks, rows, lambda titles: " | ".join(titles), last_items=3)
    for row, request in zip(rows, found, strict=True):
        end = walks.row_events[row]
        start = max(walks.offsets[walks.row_sequences[row]], end - 3)
        titles = [walks.catalogue.titles[item] for item in walks.events[start:end]]
        assert request.key == walks.row_ids[row]
        assert request.prompt == " | ".join(title for title in titles if title)
    assert any(request.prompt.count("|") == 2 for request in found)
