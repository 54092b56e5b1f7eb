"""The local backend: batches, texts, resumption, and what it refuses."""

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.backends import GenerationRequest, HfGenerator
from recdistill.teachers.generation.answers import GenerationStore, generate_rows
from recdistill.teachers.generation.decoding import DecodeOptions
from tiny_lm import TITLES, tiny_lm

COMPLETIONS = [f'"{title}"' for title in TITLES] + ["", '"Up"']  # one without a title, one twice


@pytest.fixture(scope="module")
def lm():
    return tiny_lm(extra=tuple(COMPLETIONS))


@pytest.fixture(scope="module")
def requests():
    rng = np.random.default_rng(0)
    texts = [", ".join(rng.choice(TITLES, rng.integers(1, 7))) for _ in range(23)]
    return [GenerationRequest(5 * i + 1, f"The person has watched: {text}\n") for i, text in enumerate(texts)]


def answers(generator, some):
    return {answer.key: answer for answer in generator.generate(some)}


@pytest.mark.parametrize("mode", ["greedy", "beam", "constrained"])
def test_answers_are_the_same_alone_and_in_any_batch(lm, requests, mode):
    options = DecodeOptions(mode, beams=4, max_new_tokens=6)
    generator = HfGenerator(lm, options, completions=COMPLETIONS)
    together = answers(generator, requests)
    assert sorted(together) == [r.key for r in requests]
    small = answers(HfGenerator(lm, options, completions=COMPLETIONS, batch_tokens=300), requests[::-1])
    alone = {r.key: next(generator.generate([r])) for r in requests[:8]}
    for key, answer in together.items():
        for other in (small[key], alone.get(key, answer)):
            assert other.texts == answer.texts
            assert other.scores == pytest.approx(answer.scores, abs=1e-4)
            assert (other.prompt_tokens, other.new_tokens) == (answer.prompt_tokens, answer.new_tokens)
    for request in requests:
        assert together[request.key].prompt_tokens == len(lm.encode(request.prompt))


def test_constrained_answers_are_distinct_titles_in_order(lm, requests):
    generator = HfGenerator(lm, DecodeOptions("constrained", beams=8), completions=COMPLETIONS)
    lengths = {text: len(lm.encode_answer(text)) + 1 for text in COMPLETIONS}
    for answer in generator.generate(requests):
        assert len(set(answer.texts)) == 8
        assert set(answer.texts) <= set(COMPLETIONS) - {""}
        assert list(answer.scores) == sorted(answer.scores, reverse=True)
        assert answer.new_tokens == sum(lengths[text] for text in answer.texts)


def test_a_title_that_begins_another_is_reachable(lm, requests):
    generator = HfGenerator(lm, DecodeOptions("constrained", beams=99), completions=COMPLETIONS)
    answer = next(generator.generate(requests[:1]))
    assert sorted(answer.texts) == sorted(set(COMPLETIONS) - {""})


def test_a_student_alone_decides_where_the_model_has_no_weight(lm, requests):
    rng = np.random.default_rng(1)
    table = torch.from_numpy(rng.normal(size=(200, len(COMPLETIONS))) * 2).log_softmax(1)
    asked = []

    def student(keys):
        asked.extend(keys)
        return table[list(keys)]

    options = DecodeOptions("constrained", beams=30, lm_weight=0.0)
    generator = HfGenerator(lm, options, completions=COMPLETIONS, item_log_probs=student, student="s")
    for answer in generator.generate(requests):
        masses = {}
        for text, value in zip(COMPLETIONS, table[answer.key].exp().tolist(), strict=True):
            if text:
                masses[text] = masses.get(text, 0) + value
        order = sorted(masses, key=lambda text: -masses[text])
        assert list(answer.texts) == order
        whole = sum(masses.values())
        assert answer.scores == pytest.approx([np.log(masses[t] / whole) for t in order], abs=1e-4)
    assert sorted(asked) == [r.key for r in requests]
    wrong = HfGenerator(lm, options, completions=COMPLETIONS, item_log_probs=lambda keys: table[keys, :5])
    with pytest.raises(ConfigError, match="log_softmax"):
        next(wrong.generate(requests))


def test_batches_are_of_like_length_and_within_the_budget(lm, requests):
    generator = HfGenerator(lm, DecodeOptions("greedy"), batch_tokens=200, max_rows=5)
    batches = generator.batches(requests)
    lengths = [[len(lm.encode(r.prompt)) for r in batch] for batch in batches]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    assert sorted(r.key for batch in batches for r in batch) == [r.key for r in requests]
    assert all(len(batch) == 1 or len(batch) * (batch[0] + 16) <= 200 for batch in lengths)
    assert max(map(len, lengths)) > 1
    for gone in range(len(batches)):
        rest = [r for i, batch in enumerate(batches) if i != gone for r in batch]
        assert generator.batches(rest[::-1]) == [batch for i, batch in enumerate(batches) if i != gone]


@pytest.mark.parametrize("mode", ["beam", "constrained"])
def test_a_resumed_run_writes_the_same_bytes(lm, requests, tmp_path, mode):
    options = DecodeOptions(mode, beams=3, max_new_tokens=5)

    def run(folder):
        made = HfGenerator(lm, options, completions=COMPLETIONS, batch_tokens=400)
        generate_rows(made, requests, GenerationStore(folder, made.settings))
        return (folder / "generations.jsonl").read_bytes()

    expected = run(tmp_path / "whole")
    generator = HfGenerator(lm, options, completions=COMPLETIONS, batch_tokens=400)
    store = GenerationStore(tmp_path / "killed", generator.settings)
    by_key = {r.key: r for r in requests}
    for count, answer in enumerate(generator.generate(requests)):
        if count == 9:
            break
        store.append(by_key[answer.key], answer)
    store.close()
    assert run(tmp_path / "killed") == expected


def test_a_prompt_that_does_not_fit_is_refused_with_the_number_that_fits(lm):
    long = GenerationRequest(3, "The person has watched: " + "Zodiac, " * 80)
    with pytest.raises(
        ConfigError, match=r"row 3 has \d+ tokens and its answer up to 128.*reads 256.*max-tokens 128"
    ):
        next(HfGenerator(lm, DecodeOptions("greedy")).generate([long]))


def test_what_is_missing_is_named(lm):
    with pytest.raises(ConfigError, match="no item has a title"):
        HfGenerator(lm, DecodeOptions("constrained"), completions=["", ""])
    with pytest.raises(ConfigError, match="no student"):
        HfGenerator(lm, DecodeOptions("constrained", lm_weight=0.5), completions=COMPLETIONS)
    with pytest.raises(ConfigError, match="batch_tokens=0"):
        HfGenerator(lm, batch_tokens=0)


def test_the_fingerprint_follows_what_decides_the_answers(lm):
    prints = [
        HfGenerator(lm, options, completions=completions).fingerprint
        for options in (DecodeOptions("constrained", beams=2), DecodeOptions("constrained", beams=3))
        for completions in (COMPLETIONS, COMPLETIONS[1:])
    ]
    assert len(set(prints)) == 4
    again = HfGenerator(lm, DecodeOptions("constrained", beams=2), completions=COMPLETIONS, batch_tokens=99)
    assert again.fingerprint == prints[0]
