"""Sampled answers: the right shares, the same whenever they are asked for, and different from each other."""

import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.backends import GenerationRequest, HfGenerator
from recdistill.teachers.generation.answers import GenerationStore, generate_rows
from recdistill.teachers.generation.decoding import DecodeOptions
from recdistill.teachers.generation.sampling import drawn, uniforms
from tiny_lm import TITLES, tiny_lm

OPTIONS = DecodeOptions("sample", beams=3, max_new_tokens=8, temperature=0.8, top_tokens=12, seed=5)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def requests():
    rng = np.random.default_rng(1)
    texts = [", ".join(rng.choice(TITLES, rng.integers(1, 7))) for _ in range(17)]
    return [GenerationRequest(3 * i + 2, f"The person has watched: {text}\n") for i, text in enumerate(texts)]


def answers(generator, some):
    return {answer.key: answer for answer in generator.generate(some)}


def test_numbers_are_even_and_belong_to_row_answer_and_step():
    keys = np.arange(2000)
    found = uniforms(3, keys, 4, 7)
    assert ((found >= 0) & (found < 1)).all()
    assert np.histogram(found, bins=10, range=(0, 1))[0] == pytest.approx(800, abs=120)
    assert abs(np.corrcoef(found.T)[~np.eye(4, dtype=bool)]).max() < 0.08
    assert (uniforms(3, keys[[5]], 4, 7) == found[5]).all()
    for other in (uniforms(4, keys, 4, 7), uniforms(3, keys, 4, 8), uniforms(3, keys + 2000, 4, 7)):
        assert np.unique(np.concatenate([found, other])).size == 2 * found.size


def test_tokens_come_in_their_shares():
    log_probs = torch.tensor([0.5, 0.1, 0.3, 0.06, 0.04]).log().expand(1, 20000, 5)
    draws = torch.from_numpy(uniforms(0, np.array([1]), 20000, 0))
    counts = torch.bincount(drawn(log_probs, draws, 0.5, 3).flatten(), minlength=5) / 20000
    weights = torch.tensor([0.25, 0.01, 0.09, 0, 0])  # squared by the temperature, cut to three
    assert counts.tolist() == pytest.approx((weights / weights.sum()).tolist(), abs=0.01)
    assert drawn(log_probs[:, :1], torch.zeros(1, 1), 1.0, 0).item() == 0  # the likeliest comes first


def test_answers_are_the_same_alone_in_any_batch_and_with_either_memory(lm, requests):
    together = answers(HfGenerator(lm, OPTIONS), requests)
    small = answers(HfGenerator(lm, OPTIONS, batch_tokens=200, cache="reorder"), requests[::-1])
    for request in requests:
        alone = next(HfGenerator(lm, OPTIONS).generate([request]))
        for other in (small[request.key], alone):
            assert other.texts == together[request.key].texts
            assert other.scores == pytest.approx(together[request.key].scores, abs=1e-4)
        assert list(alone.scores) == sorted(alone.scores, reverse=True)
        assert len(alone.texts) == 3
    assert sum(len(set(answer.texts)) > 1 for answer in together.values()) > 12


def test_scores_are_the_model_s_log_probabilities(lm, requests):
    answer = next(HfGenerator(lm, OPTIONS).generate(requests[:1]))
    prompt = lm.encode(requests[0].prompt)
    raw = HfGenerator(lm, OPTIONS)._search([prompt], [requests[0].key])
    for tokens, score, count in zip(raw.tokens[0], raw.scores[0], raw.counts[0], strict=True):
        whole = torch.tensor([prompt + tokens + [lm.eos_id] * (count - len(tokens))])
        with torch.inference_mode():
            log_probs = lm.model(whole).logits[0].log_softmax(-1)
        naive = sum(float(log_probs[len(prompt) - 1 + i, whole[0, len(prompt) + i]]) for i in range(count))
        assert score == pytest.approx(naive, abs=1e-3)
    assert answer.scores == pytest.approx(raw.scores[0])


def test_a_seed_changes_the_answers_and_low_temperature_is_greedy(lm, requests):
    other = answers(HfGenerator(lm, DecodeOptions("sample", beams=3, max_new_tokens=8, seed=6)), requests)
    first = answers(HfGenerator(lm, DecodeOptions("sample", beams=3, max_new_tokens=8, seed=5)), requests)
    assert sum(first[key].texts != other[key].texts for key in first) > 12
    cold = answers(
        HfGenerator(lm, DecodeOptions("sample", beams=1, max_new_tokens=8, temperature=1e-4)), requests
    )
    greedy = answers(HfGenerator(lm, DecodeOptions("greedy", max_new_tokens=8)), requests)
    assert {k: a.texts for k, a in cold.items()} == {k: a.texts for k, a in greedy.items()}


def test_an_interrupted_run_has_the_same_bytes(lm, requests, tmp_path):
    generator = HfGenerator(lm, OPTIONS, batch_tokens=300)
    whole = generate_rows(generator, requests, GenerationStore(tmp_path / "a", generator.settings))
    assert whole.answered == len(requests)
    broken = GenerationStore(tmp_path / "b", generator.settings)
    for answer in list(generator.generate(requests))[:5]:
        broken.append(next(r for r in requests if r.key == answer.key), answer)
    broken.close()
    generate_rows(generator, requests, GenerationStore(tmp_path / "b", generator.settings))
    files = [(tmp_path / name / "generations.jsonl").read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_other_ways_of_decoding_keep_their_settings():
    assert "temperature" not in DecodeOptions("greedy").settings
    assert DecodeOptions("sample", temperature=0.6).settings["temperature"] == 0.6
    for wrong in ({"temperature": 0.0}, {"top_tokens": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="sampling with"):
            DecodeOptions("sample", **wrong)
