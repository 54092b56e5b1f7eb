"""A small language model from a dataset: what it reads, that it loads like any other, that a kill changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from recdistill.errors import ConfigError, DataError, RunError
from recdistill.teachers.language_model.prompts import PROMPT_TEMPLATES
from recdistill.teachers.language_model.small import SmallLmOptions, train_small_lm
from recdistill.teachers.language_model.small_data import (
    PackedBlocks,
    documents,
    token_stream,
    train_tokenizer,
)
from shop import ring_dataset
from teachers.conftest import build_dataset

LIST = PROMPT_TEMPLATES["generic"]
TINY = SmallLmOptions(
    hidden_size=16,
    layers=1,
    heads=2,
    vocabulary=320,
    context=32,
    steps=12,
    learning_rate=2e-2,
    batch_tokens=256,
    precision="float32",
    valid_share=0.1,
)


class KilledError(Exception):
    pass


def killer(step):
    def hear(done, total, loss):
        if done == step:
            raise KilledError

    return hear


@pytest.fixture(scope="module")
def ring():
    return ring_dataset()


@pytest.fixture(scope="module")
def trained(ring, tmp_path_factory):
    out = tmp_path_factory.mktemp("lm") / "lm"
    return out, train_small_lm(ring, out, TINY)


def test_documents_tell_training_titles_only():
    data = build_dataset([[0, 1, 2, 3, 4], [4, 2, 1, 0], [4, 3, 2]], titles=["A", "", "C", "D", "E"])
    # the last target is for test, the one before for validation; item 1 has no title; the third has no training row
    assert documents(data, LIST) == ['"A", "C"', '"E", "C"']


def test_a_dataset_without_titles_is_refused():
    with pytest.raises(DataError, match="no training event"):
        documents(build_dataset([[0, 1, 2, 3]], titles=["", "", "", "D"]), LIST)


def test_every_text_can_be_written_and_read_back():
    words = train_tokenizer(['"Lego", "Drum"'], ["Lego", "Drum"], 300, 64)
    for text in ['"Légo </s> <pad>"', "日本\n\t x", PROMPT_TEMPLATES["toys"].prompt(["a"])]:
        ids = words(text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert words.decode(ids) == text
        assert not {words.pad_token_id, words.bos_token_id, words.eos_token_id} & set(ids)
    assert words("a").input_ids[0] == words.bos_token_id


def test_blocks_hold_the_whole_stream_and_the_next_tokens():
    stream = np.arange(100, 137)
    data = PackedBlocks(stream, 8, 2, seed=3)
    cuts = set()
    for epoch in range(4):
        steps = data.plan(epoch)
        assert len(steps) == len(data.plan(0)) == 3
        parts = [data.batch(epoch, part) for step in steps for part in step]
        tokens = np.concatenate([part.tokens.numpy().ravel() for part in parts])
        labels = np.concatenate([part.labels.numpy().ravel() for part in parts])
        assert set(tokens) == set(stream)
        np.testing.assert_array_equal(labels, np.where(tokens == 136, 100, tokens + 1))
        cuts.add(tuple(tokens))
    assert len(cuts) == 4
    whole = data.all_blocks()
    assert np.concatenate([b.tokens.numpy().ravel() for b in whole])[:37].tolist() == stream.tolist()


def test_a_stream_marks_where_documents_begin_and_end():
    words = train_tokenizer(["ab"], ["ab"], 300, 64)
    stream = token_stream(words, ["ab", "a"])
    assert words.decode(stream) == "<s>ab</s><s>a</s>"


def test_it_loads_like_any_downloaded_model(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recdistill.teachers.language_model.loading import load_language_model

    out, facts = trained
    model, words = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.model_type == "llama"
    assert len(words) == facts["vocabulary"] <= 320
    assert sum(value.numel() for value in model.parameters()) == facts["parameters"]
    lm = load_language_model(out)
    assert (lm.hidden_size, lm.context) == (16, 32)
    assert lm.encode("Saga")[0] == words.bos_token_id
    assert lm.decode(lm.encode('"Saga 1 part 2"')) == '"Saga 1 part 2"'
    assert lm.eos_id not in lm.encode("</s>")
    assert lm.fingerprint == load_language_model(out).fingerprint
    assert lm.fingerprint != load_language_model(out, dtype="bfloat16").fingerprint


def test_it_learned_and_says_what_it_is(trained, ring):
    out, facts = trained
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "language_model"
    assert "on the titles and training histories of this dataset alone" in manifest["description"]
    assert manifest["settings"]["dataset_fingerprint"] == ring.fingerprint
    assert facts["steps"] == 12
    assert facts["valid_loss"] < 0.8 * np.log(facts["vocabulary"])
    assert not out.with_name("lm.training").exists()


def test_a_killed_training_ends_with_the_same_files(trained, ring, tmp_path):
    whole, _ = trained
    out = tmp_path / "lm"
    for step in (2, 7, 11):
        with pytest.raises(KilledError):
            train_small_lm(ring, out, TINY, on_step=killer(step))
        assert not out.exists()
    taken = []
    train_small_lm(ring, out, TINY, on_step=lambda done, total, loss: taken.append(done))
    assert len(taken) < 12  # it did go on
    for name in ("model.safetensors", "tokenizer.json", "config.json", "manifest.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_another_training_is_not_continued(ring, tmp_path):
    out = tmp_path / "lm"
    with pytest.raises(KilledError):
        train_small_lm(ring, out, TINY, on_step=killer(4))
    other = replace(TINY, steps=1, learning_rate=0.5)
    with pytest.raises(RunError, match=r"learning_rate, steps"):
        train_small_lm(ring, out, other)
    train_small_lm(ring, out, other, overwrite=True)
    with pytest.raises(RunError, match="already exists"):
        train_small_lm(ring, out, other)


@pytest.mark.parametrize(
    "change",
    [{"heads": 3}, {"vocabulary": 258}, {"valid_share": 0.9}, {"layers": 0}, {"hidden_size": 6, "heads": 2}],
)
def test_shapes_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(TINY, **change)


@pytest.mark.parametrize("wrong", ["nowhere/", "/no/such/folder", "./x"])
def test_a_folder_that_is_not_there(wrong):
    from recdistill.teachers.language_model.loading import load_language_model

    with pytest.raises(ConfigError, match="recdistill lm train"):
        load_language_model(wrong)


def test_errors_of_loading(trained, tmp_path, monkeypatch):
    from recdistill.teachers.language_model.loading import load_language_model

    out, _ = trained
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load_language_model(tmp_path)
    with pytest.raises(ConfigError, match="Allowed: auto"):
        load_language_model(out, dtype="int8")
    with pytest.raises(ConfigError, match="--device cpu"):
        load_language_model(out, device="cuda:99")
    with pytest.raises(ConfigError, match="quantiz"):
        load_language_model(out, quantize="2bit")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        load_language_model(broken)
