"""The teacher of three stages, and the encoders it grounds with."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError
from recdistill.knowledge import audit_knowledge, load_knowledge
from recdistill.knowledge.official import export_official, import_official
from recdistill.teachers.backends.base import Generation
from recdistill.teachers.bigrec import teacher as bigrec
from recdistill.teachers.bigrec.teacher import ALL, ground_answers, speakers
from recdistill.teachers.grounding.answer_facts import answer_facts
from recdistill.teachers.grounding.encoders import (
    LanguageModelEncoder,
    SentenceEncoder,
    Whitening,
    batches,
)
from recdistill.teachers.grounding.injection import popularity
from recdistill.teachers.grounding.space import GroundOptions
from recdistill.teachers.language_model.prompts import normalise_answer
from recdistill.teachers.text.item_text import whiten
from shop import ring_dataset
from tiny_lm import TITLES, tiny_lm


class Letters:
    """Counts letters and pairs of them: a small encoder for which like texts are near."""

    name = "letters"
    fingerprint = "letters 1"
    calls = 0

    def encode(self, texts, progress=None):
        type(self).calls += 1
        found = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for first, second in zip(" " + text, text + " ", strict=True):
                found[row, ord(first) % 29] += 1
                found[row, 29 + (3 * ord(first) + ord(second)) % 35] += 0.5
        return found


def written(data, rows, seed=0):
    """Mostly the title of the next item of the ring, with slips of the pen."""
    rng = np.random.default_rng(seed)
    titles, answers = data.catalogue.titles, {}
    last = data.histories(rows, 1)[:, 0]
    for row, item in zip(data.row_ids[rows].tolist(), last.tolist(), strict=True):
        text = titles[(item + 1) % len(titles)]
        slip = rng.random()
        text = text[:-1] if slip < 0.2 else text.upper() if slip < 0.3 else text
        answers[row] = Generation(row, (f'"{text}"\n', f'"{titles[item]}"'), (-0.1, -1.0))
    return answers


@pytest.fixture(scope="module")
def ring():
    return ring_dataset()


@pytest.fixture(scope="module")
def answers(ring):
    return written(ring, np.arange(len(ring.row_ids)))


# --- encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_vector_is_the_hidden_state_and_does_not_depend_on_the_batch(kind, pooling):
    lm = tiny_lm(kind)
    encoder = LanguageModelEncoder(lm, pooling, batch_tokens=64)
    found = encoder.encode([*TITLES, ""])
    assert found.shape == (len(TITLES) + 1, 32)
    for text, vector in zip([*TITLES, ""], found, strict=True):
        ids = lm.encode(text) or [lm.eos_id]  # the bare title, as the tokenizer begins a text
        with torch.inference_mode():
            states = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        expected = states[-1] if pooling == "last" else states.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)
    alone = np.concatenate([encoder.encode([text]) for text in ["Up", "Star Wars: The Last Stand" * 3]])
    together = encoder.encode(["Up", "Star Wars: The Last Stand" * 3])
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_encoder_fingerprints_tell_models_and_poolings_apart():
    found = {LanguageModelEncoder(tiny_lm(seed=s), p).fingerprint for s in (0, 1) for p in ("last", "mean")}
    assert len(found) == 4
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        LanguageModelEncoder(tiny_lm(), "means")
    with pytest.raises(ConfigError, match="--ground-encoder"):
        SentenceEncoder("tfidf")


def test_batches_hold_like_lengths_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 40, 100).tolist()
    found = list(batches(lengths, 120))
    assert sorted(index for batch in found for index in batch) == list(range(100))
    for batch in found:
        assert len(batch) * max(lengths[i] for i in batch) <= 120 or len(batch) == 1
    edges = [(min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in found]
    assert all(before[1] <= after[0] for before, after in pairwise(edges))
    assert list(batches([500], 10)) == [[0]]


@pytest.mark.parametrize("rank", [None, 5])
def test_whitening_maps_items_as_the_text_teachers_do(rank):
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((60, 12)) @ rng.standard_normal((12, 12)) + 30).astype(np.float32)
    has_text = np.ones(60, dtype=bool)
    has_text[7] = False
    found = Whitening.fit(vectors, has_text, rank).apply(vectors[has_text])
    np.testing.assert_allclose(found, whiten(vectors, has_text, rank)[has_text], atol=2e-4)


# --- models of a cross-fitted teacher ---------------------------------------------------------------------------


def test_no_training_row_is_answered_by_a_model_that_learned_from_its_sequence(ring):
    rows = np.arange(len(ring.row_ids))
    folds = np.random.default_rng(0).integers(0, 3, len(ring.offsets) - 1)[ring.row_sequences]
    found = speakers(ring, rows, folds)
    assert [one.name for one in found] == ["fold-0", "fold-1", "fold-2", ALL]
    assert sorted(np.concatenate([one.answers for one in found])) == rows.tolist()
    for one in found[:3]:
        own = set(ring.row_sequences[one.answers])
        assert not own & set(ring.row_sequences[one.may_learn])
        assert set(ring.row_splits[one.answers]) == {0}
    assert set(found[3].may_learn) == set(ring.rows("train"))
    assert set(ring.row_splits[found[3].answers]) == {1, 2}
    train = ring.rows("train")
    assert [one.name for one in speakers(ring, train, folds)] == ["fold-0", "fold-1", "fold-2"]
    assert speakers(ring, train, folds, encodes=True)[-1].name == ALL
    assert len(speakers(ring, rows)) == 1


# --- grounding into a knowledge folder --------------------------------------------------------------------------


def test_knowledge_is_sound_and_says_how_it_was_made(ring, answers, tmp_path):
    found = ground_answers(
        ring,
        answers,
        Letters(),
        tmp_path / "k",
        GroundOptions(top_k=10),
        facts={"model": "tiny", "folds": 1},
        normalise=normalise_answer,
    )
    loaded = load_knowledge(tmp_path / "k", ring, check=True)
    assert found.manifest == loaded.manifest
    for key, value in {
        "teacher": "bigrec",
        "metric": "l2",
        "encoder": "letters",
        "model": "tiny",
        "top_k": 10,
    }.items():
        assert loaded.manifest[key] == value
    assert loaded.manifest["injection"] == {"kind": "none"}
    assert loaded.ranking.shape == (len(ring.row_ids), 10)
    exact = [row for row, a in answers.items() if normalise_answer(a.texts[0]) in ring.catalogue.titles]
    at = np.searchsorted(loaded.row_ids, exact)
    assert len(exact) > 100
    np.testing.assert_array_equal(loaded.ranking_distance[at, 0], 0)
    # a student scores items by the stored vectors exactly as they were ranked
    scores = loaded.score(loaded.row_ids[:50])
    nearest = scores.gather(1, torch.from_numpy(loaded.ranking[:50].astype(np.int64)))
    np.testing.assert_allclose(-nearest.numpy(), loaded.ranking_distance[:50], atol=2e-3)
    audit = audit_knowledge(loaded, ring, split="test")
    assert audit.metrics["test"]["hr@5"] > 5 * 5 / ring.item_count


def test_facts_about_the_answers(ring, answers, tmp_path):
    data = ring
    rows = data.rows("test")[:4]
    ids, titles, targets = data.row_ids[rows].tolist(), data.catalogue.titles, data.targets(rows)
    past = data.histories(rows, 1)[:, 0]
    other = next(item for item in range(data.item_count) if item not in data.histories(rows[2:3], 50))
    said = {
        ids[0]: Generation(ids[0], (f'"{titles[targets[0]]}"',)),
        ids[1]: Generation(ids[1], (titles[past[1]].upper() + "!",)),
        ids[2]: Generation(ids[2], (titles[other], "x")),
        ids[3]: Generation(ids[3], ('""',)),
    }
    found = ground_answers(
        data, said, Letters(), tmp_path, GroundOptions(top_k=5), normalise=normalise_answer
    )
    facts = answer_facts(data, said, found, normalise_answer)
    assert (facts.rows, facts.empty, facts.distinct_texts) == (4, 0.25, 4)
    assert (facts.valid_titles, facts.exact_titles) == (0.75, 0.5)
    assert facts.target_titles == (0.5 if targets[2] == other else 0.25)
    first = found.ranking[:, 0]
    assert facts.distinct_items == len(set(first.tolist()))
    repeats = [i in data.histories(rows[k : k + 1], 50) for k, i in enumerate(first)]
    assert facts.history_repeats == np.mean(repeats)
    assert "75.0% are titles" in str(facts)


@pytest.mark.parametrize(
    ("options", "inject"),
    [
        (GroundOptions(top_k=8, whiten=0), False),
        (GroundOptions(top_k=8, metric="cosine", beam_rule="beams_first"), False),
        (GroundOptions(top_k=8), True),
    ],
)
def test_killed_anywhere_the_knowledge_file_is_the_same(
    ring, answers, tmp_path, monkeypatch, options, inject
):
    monkeypatch.setattr(bigrec, "SHARD_ROWS", 100)
    injection = popularity(ring) if inject else None

    def run(folder, progress=None):
        return ground_answers(
            ring,
            answers,
            Letters(),
            folder,
            options,
            injection=injection,
            normalise=normalise_answer,
            progress=progress,
        )

    class Killed(BaseException):
        pass

    whole = run(tmp_path / "whole")
    if inject:
        assert whole.manifest["injection"]["gamma"] in map(float, whole.manifest["injection_tuning"])
        assert whole.manifest["distance"] == "injected l2"
    expected = (tmp_path / "whole" / "knowledge.safetensors").read_bytes()
    for stop in range(4):
        count = 0

        def dies(done, stop=stop):
            nonlocal count
            count += 1
            if count > stop:
                raise Killed

        with pytest.raises(Killed):
            run(tmp_path / "k", dies)
    run(tmp_path / "k")
    assert (tmp_path / "k" / "knowledge.safetensors").read_bytes() == expected
    before = Letters.calls
    run(tmp_path / "k")  # a finished folder stays as it is, and nothing is encoded again
    assert Letters.calls == before
    assert (tmp_path / "k" / "knowledge.safetensors").read_bytes() == expected
    with pytest.raises(KnowledgeError, match="other settings"):
        ground_answers(ring, answers, Letters(), tmp_path / "k", GroundOptions(top_k=9))


def test_rows_answered_later_join_the_others(ring, answers, tmp_path):
    ids = sorted(answers)
    some = {row: answers[row] for row in ids[::2]}
    ground_answers(ring, some, Letters(), tmp_path / "k", normalise=normalise_answer)
    found = ground_answers(ring, answers, Letters(), tmp_path / "k", normalise=normalise_answer)
    whole = ground_answers(ring, answers, Letters(), tmp_path / "whole", normalise=normalise_answer)
    np.testing.assert_array_equal(found.row_ids, whole.row_ids)
    np.testing.assert_array_equal(found.ranking, whole.ranking)


def test_the_authors_files_hold_the_nearest_first(ring, answers, tmp_path):
    shuffled = dict(
        sorted(answers.items(), key=lambda pair: hash(pair[0] * 7919) % 101)
    )  # any order of answering
    found = ground_answers(
        ring, shuffled, Letters(), tmp_path / "k", GroundOptions(top_k=12), normalise=normalise_answer
    )
    export_official(found, tmp_path / "files", ring, k=10, scaling="row")
    lists, confidence = (np.loadtxt(tmp_path / "files" / f"{n}_train.txt") for n in ("myrank", "confidence"))
    train = ring.rows("train")
    assert lists.shape == confidence.shape == (len(train), 10)
    assert (np.diff(confidence, axis=1) >= 0).all()
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    back = import_official(tmp_path / "files", ring)
    np.testing.assert_array_equal(back.row_ids, ring.row_ids[train])
    np.testing.assert_array_equal(back.ranking, found.rows_for(ring.row_ids[train]).ranking[:, :10])
    np.testing.assert_array_equal(back.item_embeddings, found.item_embeddings)


def test_mistakes_are_explained(ring, answers, tmp_path):
    with pytest.raises(KnowledgeError, match="--stage generate"):
        ground_answers(ring, {}, Letters(), tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'l2'"):
        GroundOptions(metric="l2_")
    with pytest.raises(ConfigError, match="--whiten"):
        GroundOptions(whiten=-1)
    train = set(ring.row_ids[ring.rows("train")].tolist())
    only = {row: answers[row] for row in answers if row in train}
    with pytest.raises(ConfigError, match="--gamma"):
        ground_answers(ring, only, Letters(), tmp_path, injection=popularity(ring))
    nameless = SequenceDataset(
        **{
            **{f: getattr(ring, f) for f in ring.__dataclass_fields__},
            "catalogue": type(ring.catalogue)(
                ring.catalogue.frame.with_columns(title=ring.catalogue.frame["title"].str.slice(0, 0))
            ),
        }
    )
    with pytest.raises(ConfigError, match="none of the 40 items has a title"):
        ground_answers(nameless, answers, Letters(), tmp_path)


def test_manifest_is_plain_json(ring, answers, tmp_path):
    ground_answers(ring, answers, Letters(), tmp_path, injection=popularity(ring), choose=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["injection"] == {"kind": "popularity", "gamma": 0.0, "zero_guard": 0.0}
    assert manifest["grounding"] == {"metric": "l2", "whiten": None, "beam_rule": "first", "top_k": 50}
