"""LLM-CF's base of examples: the best answer of each row, nothing invented, nothing asked twice."""

import json

import numpy as np
import polars as pl
import pytest

from recdistill.data.interactions import Interactions
from recdistill.data.prepare import prepare
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.knowledge import load_words
from recdistill.teachers.backends import Generation, HfGenerator, ScriptedGenerator
from recdistill.teachers.generation.decoding import DecodeOptions
from recdistill.teachers.rationales import LlmCf, Work, make_words
from recdistill.teachers.rationales.asking import planned_cost
from tiny_lm import tiny_lm

TITLES = [f"Saga {item // 5} part {item % 5}" for item in range(40)]


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 40, 500))
    frame = {"user_id": users, "item_id": rng.integers(0, 40, 500), "timestamp": rng.integers(0, 200, 500)}
    items = pl.DataFrame({"item_id": range(40), "title": TITLES, "kind": ["odd", "even"] * 20})
    return prepare(Interactions.from_frame(frame), items, split="global-time", window=5)


class Counting(ScriptedGenerator):
    """Counts what it is asked."""

    asked = 0

    def generate(self, requests, progress=None):
        for answer in super().generate(requests, progress):
            self.asked += 1
            yield answer


def answers_for(dataset, how):
    """Return three answers a question, one of them useless, and none at all for every eighth."""
    work = Work(dataset, ScriptedGenerator({}), None)
    decisions, found = how.decisions(work), {}
    for place, (row, item) in enumerate(zip(decisions.rows, decisions.items, strict=True)):
        key = int(dataset.row_ids[row])
        good = f'The person likes this saga. "{TITLES[item]}" belongs to it and fits. More of the same was wanted.'
        bad = "Explain the decision step by step: the person's taste; what the item is and what is similar"
        if place % 8:
            found[key] = (bad, "saga saga saga saga saga saga", good)
        elif place % 16:
            found[key] = (bad, "short")
    return found


def test_the_best_answer_is_kept_and_a_missing_one_is_masked(dataset, tmp_path):
    how = LlmCf(share=0.3)
    generator = Counting(answers_for(dataset, how))
    words = make_words(how, Work(dataset, generator, tmp_path / "t"))
    table = words.table("examples")
    decisions = how.decisions(Work(dataset, generator, tmp_path))
    assert table["row_id"].to_list() == dataset.row_ids[decisions.rows].tolist()
    assert table["user"].to_list() == dataset.row_sequences[decisions.rows].tolist()
    assert table["as_of"].to_list() == dataset.timestamps[dataset.row_events[decisions.rows]].tolist()
    assert table["label"].to_list() == decisions.labels.tolist()
    for place, (item, line) in enumerate(zip(decisions.items, table.iter_rows(named=True), strict=True)):
        if place % 8:
            assert TITLES[item] in line["text"]
            assert 0 < line["score"] <= 1
            assert (line["answers"], line["problem"]) == (3, "")
        else:
            assert (line["text"], line["score"]) == ("", 0)
            expected = "too short, or an echo" if place % 16 else "failed: no answer is recorded"
            assert expected in line["problem"]
    kept = np.arange(len(table)) % 8 > 0
    assert words["example_rows"].tolist() == table["row_id"].to_numpy()[kept].tolist()
    assert words["example_items"].tolist() == decisions.items[kept].tolist()
    assert words["example_labels"].tolist() == decisions.labels[kept].astype(int).tolist()
    assert words["example_words"].shape[0] == kept.sum()
    assert np.linalg.norm(words["example_words"], axis=1).min() > 0
    assert words["item_vectors"].shape == (40, words["example_words"].shape[1])
    counts = words.manifest["texts"]
    assert counts == {
        "chosen": int(decisions.labels[kept].sum()),
        "refused": int((~decisions.labels[kept]).sum()),
    }
    assert sum(words.manifest["without_text"].values()) == (~kept).sum()
    assert words.manifest["clock"] == "timestamps"


def test_nothing_is_asked_twice_and_a_second_run_has_the_same_bytes(dataset, tmp_path):
    how = LlmCf(share=0.3)
    told = answers_for(dataset, how)
    first = Counting(told)
    make_words(how, Work(dataset, first, tmp_path / "t"))
    before = (tmp_path / "t" / "words.safetensors").read_bytes()
    second = Counting(told)
    work = Work(dataset, second, tmp_path / "t")
    assert dict(planned_cost(work, how.asks(work)))["prompts"].startswith(f"{first.asked - len(told)} ")
    make_words(how, work)
    assert second.asked == first.asked - len(told)  # what failed is tried again
    assert (tmp_path / "t" / "words.safetensors").read_bytes() == before


def test_a_folder_of_other_draws_is_refused(dataset, tmp_path):
    how = LlmCf(share=0.3)
    make_words(how, Work(dataset, ScriptedGenerator(answers_for(dataset, how)), tmp_path / "t"))
    other = LlmCf(share=0.3, seed=1)
    with pytest.raises(KnowledgeError, match="other settings"):
        make_words(other, Work(dataset, ScriptedGenerator(answers_for(dataset, how)), tmp_path / "t"))


def test_no_usable_answer_is_said(dataset, tmp_path):
    how = LlmCf(share=0.1)
    told = {int(key): "no" for key in dataset.row_ids}
    with pytest.raises(KnowledgeError, match="none of the answers"):
        make_words(how, Work(dataset, ScriptedGenerator(told), tmp_path / "t"))


def test_other_columns_are_told_and_encoded(dataset, tmp_path):
    how = LlmCf(share=0.1, columns=["title", "kind"])
    asked = how.asks(Work(dataset, ScriptedGenerator({}), tmp_path))["decisions"]
    assert "part 1, even" in " ".join(request.prompt for request in asked)


@pytest.mark.parametrize(
    "wrong", [{"answers": 0}, {"temperature": -1}, {"temperature": 0}, {"domain": "cars"}]
)
def test_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        LlmCf(**wrong)
    assert LlmCf(answers=1, temperature=0).sampling is None
    assert LlmCf().sampling.answers == 3


def test_a_language_model_writes_and_an_interrupted_run_goes_on(dataset, tmp_path):
    lm = tiny_lm()
    lm.model.config.max_position_embeddings = 2048  # rotary positions have no end
    options = DecodeOptions("sample", beams=3, max_new_tokens=12, temperature=0.9, top_tokens=40)
    how = LlmCf(share=0.08)

    class Stopping(HfGenerator):
        def generate(self, requests, progress=None):
            for number, answer in enumerate(super().generate(requests, progress)):
                if number == 5:
                    raise KeyboardInterrupt
                yield answer

    def work(kind, out):
        return Work(dataset, kind(lm, options, batch_tokens=2000), out, lm=lm, answer_tokens=12)

    whole = make_words(how, work(HfGenerator, tmp_path / "a"))
    with pytest.raises(KeyboardInterrupt):
        make_words(how, work(Stopping, tmp_path / "b"))
    lines = (tmp_path / "b" / "answers" / "decisions" / "shards" / "00000.jsonl").read_text().splitlines()
    assert len(lines) == 5
    assert len(json.loads(lines[0])["texts"]) == 3
    make_words(how, work(HfGenerator, tmp_path / "b"))
    for name in ("words.safetensors", "answers/decisions/generations.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert whole.table("examples")["answers"].max() == 3
    assert load_words(tmp_path / "b", dataset).maker == "llm-cf"


def test_answers_with_scores_are_read_as_well(dataset, tmp_path):
    how = LlmCf(share=0.1)
    told = {
        key: Generation(key, texts, tuple(-float(i) for i in range(len(texts))))
        for key, texts in answers_for(dataset, how).items()
    }
    words = make_words(how, Work(dataset, ScriptedGenerator(told), tmp_path / "t"))
    assert len(words["example_rows"])
