"""The estimate beside what a whole run really takes, where that can be counted."""

from dataclasses import replace

import pytest

from command import call
from misbehaving_server import running
from recdistill.errors import ConfigError, RunError
from recdistill.teachers.backends import HfGenerator, HttpGenerator, ScriptedGenerator
from recdistill.teachers.cost import estimate_cost
from recdistill.teachers.generation.answers import GenerationStore, generate_rows, title_requests
from recdistill.teachers.generation.decoding import DecodeOptions
from recdistill.teachers.language_model.prompts import load_template
from shop import ring_dataset
from tiny_lm import tiny_lm


@pytest.fixture(scope="module")
def data():
    return ring_dataset(30)


@pytest.fixture(scope="module")
def requests(data):
    return title_requests(data, data.rows("train"), load_template("books").prompt, last_items=6)


@pytest.fixture(scope="module")
def lm(data):
    return tiny_lm(extra=(*data.catalogue.titles, load_template("books").prompt([])))


def run(*arguments):
    said = call("teach", "cost", *arguments)
    return dict(line.split("  ", 1) for line in said.splitlines() if "  " in line), said


@pytest.mark.parametrize("mode", ["greedy", "constrained"])
def test_local_estimate_and_actual(data, requests, lm, tmp_path, mode):
    completions = [load_template("books").completion(title) for title in data.catalogue.titles]
    options = DecodeOptions(mode, beams=4, max_new_tokens=8)
    generator = HfGenerator(lm, options, completions=completions, batch_tokens=3000)
    done = []
    found = estimate_cost(
        generator, requests, sample=24, prompt_price=3.0, answer_price=15.0, progress=done.append
    )
    assert len(requests) > 2 * found.sampled >= 48
    assert sum(done) == found.sampled

    store = GenerationStore(tmp_path / "g", generator.settings)
    answers = list(generator.generate(requests))
    generate_rows(generator, requests, store)
    read, written = sum(a.prompt_tokens for a in answers), sum(a.new_tokens for a in answers)
    assert (found.rows, found.calls) == (len(requests), len(generator.batches(requests)))
    assert found.counted
    assert found.prompt_tokens == read == sum(len(lm.encode(r.prompt)) for r in requests)
    assert 1 / 1.25 < found.new_tokens / written < 1.25
    assert found.price == pytest.approx((3.0 * found.prompt_tokens + 15.0 * found.new_tokens) / 1e6)
    size = (tmp_path / "g" / "generations.jsonl").stat().st_size
    assert 1 / 1.1 < found.disk_bytes / (2 * size) < 1.1
    assert found.memory_bytes > found.weight_bytes == sum(w.numel() * 4 for w in lm.model.parameters())
    assert found.seconds > 0


def test_time_is_scaled_by_tokens(requests, lm, monkeypatch):
    clock = iter([100.0, 103.0])
    monkeypatch.setattr("recdistill.teachers.cost.time.perf_counter", lambda: next(clock))
    generator = HfGenerator(lm, DecodeOptions("greedy", max_new_tokens=4), batch_tokens=3000)
    found = estimate_cost(generator, requests, sample=24)
    batches = generator.batches(requests)
    ran = {r.key for batch in (batches[0], batches[-1]) for r in batch}  # the longest and the shortest
    answers = list(generator.generate(requests))
    sampled = sum(a.prompt_tokens + a.new_tokens for a in answers if a.key in ran)
    assert found.sampled == len(ran)
    assert found.seconds == pytest.approx(3.0 * (found.prompt_tokens + found.new_tokens) / sampled)
    assert found.hours == found.seconds / 3600
    assert dict(found.lines())["time"].startswith(f"{found.seconds:.1f} s (")
    assert dict(replace(found, seconds=9000.0).lines())["time"].startswith("2.5 hours")


def test_endpoint_estimate_uses_what_the_endpoint_counts(requests):
    with running() as server:
        server.script[requests[0].prompt] = [(400, "no")]
        generator = HttpGenerator("m", server.url, concurrency=4)
        found = estimate_cost(generator, requests, sample=10, prompt_price=1.0)
        assert sum(server.tries.values()) == 11
    assert (found.calls, found.sampled, found.counted, found.memory_bytes) == (len(requests), 10, False, None)
    assert found.new_tokens == 3 * len(requests)  # the server counts 2 and 3 for every request
    assert found.prompt_tokens == pytest.approx(2 * len(requests), rel=0.25)
    assert found.price == pytest.approx(found.prompt_tokens / 1e6)
    assert ("tokens read", f"{found.prompt_tokens:,} (estimated)") in found.lines()


def test_what_cannot_be_estimated_is_said(requests):
    recorded = ScriptedGenerator({request.key: "Up" for request in requests})
    assert ("tokens read", "not counted by the backend") in estimate_cost(recorded, requests).lines()
    with pytest.raises(RunError, match="no token counts"):
        estimate_cost(recorded, requests, answer_price=2.0)
    with pytest.raises(RunError, match=r"all 32 sampled rows failed.*no answer is recorded"):
        estimate_cost(ScriptedGenerator({}), requests)
    for some, sample in (([], 3), (requests, 0)):
        with pytest.raises(ConfigError, match="sample"):
            estimate_cost(recorded, some, sample=sample)


def test_the_command_prints_the_estimate(data, lm, tmp_path):
    data.save(tmp_path / "d")
    lm.model.save_pretrained(tmp_path / "lm")
    lm.tokenizer.save_pretrained(tmp_path / "lm")
    common = ["--dataset", tmp_path / "d", "--splits", "valid", "--sample", 8]
    lines, text = run("--model", tmp_path / "lm", "--beams", 2, "--domain", "books", *common)
    assert lines["rows"].strip().startswith("30 (")
    assert "(counted)" in lines["tokens read"]
    assert "price" not in text
    assert {"calls", "tokens written", "time", "memory", "disk"} <= set(lines)
    with running() as server:
        urls = ["--base-url", server.url, "--base-url", server.url]
        lines, _ = run("--model", "m", "--backend", "http", *urls, "--answer-price", 100000, *common)
        assert lines["tokens written"].split()[0] == "90"
        assert lines["price"].strip() == "9.00"
        assert "memory" not in lines
    with pytest.raises(ConfigError, match="--base-url"):
        run("--model", "m", "--backend", "http", *common)
    with pytest.raises(ConfigError, match="unknown backend 'vllm'"):
        run("--model", "m", "--backend", "vllm", *common)
