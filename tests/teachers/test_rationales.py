"""Knowledge in words: nothing of a row's future is told, nothing is asked twice, nothing is made up."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, FingerprintError, KnowledgeError, RunError
from recdistill.knowledge import Words, load_words, save_words
from recdistill.teachers.backends import ScriptedGenerator
from recdistill.teachers.rationales import (
    MAKERS,
    Kar,
    Slim,
    Work,
    load_encoder,
    make_encoder,
    make_words,
    maker,
    moments,
    parse_rationale,
    planned_cost,
    readable,
)
from recdistill.teachers.rationales.wording import DOMAINS, domain, fitted, kar_item, kar_user, slim_user
from says import Says, rationale, told_titles
from shop import ITEMS, ring_dataset


def timed(data, *, step=10, ties=False):
    """Give events times: each sequence starts at another second; with ties, pairs of events share one."""
    lengths = np.diff(data.offsets)
    within = np.concatenate([np.arange(n) for n in lengths])
    times = np.repeat(np.arange(len(lengths)), lengths) + step * (within // 2 if ties else within)
    return dataclasses.replace(data, timestamps=times.astype(np.int64))


def by_time(data):
    """Cut the same rows by time: 70 % train, then valid, then test."""
    times = data.timestamps[data.row_events]
    cuts = np.quantile(times, [0.7, 0.85])
    codes = (times[:, None] >= cuts).sum(1).astype(np.int8)
    return dataclasses.replace(
        data, row_splits=codes, provenance={"name": "ring", "split": {"kind": "global-time"}}
    )


@pytest.fixture(scope="module")
def plain():
    return ring_dataset(30, 12)


@pytest.fixture(scope="module")
def shops(plain):
    return {
        "order alone": plain,
        "times": timed(plain),
        "ties": timed(plain, ties=True),
        "by time": by_time(timed(plain)),
        "by time with ties": by_time(timed(plain, ties=True)),
    }


SHOPS = ["order alone", "times", "ties", "by time", "by time with ties"]
SETTINGS = [
    {"cuts": (0.5,), "most": 4, "keep": "first"},
    {"cuts": (0.3, 0.7, 1.0), "most": 5, "keep": "last"},
    {"cuts": (1.0,), "most": 50, "keep": "first", "each_row": ("valid", "test")},
]


@pytest.mark.parametrize("shop", SHOPS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_no_row_reads_of_an_event_at_or_after_its_answer(shops, shop, settings):
    data = shops[shop]
    made = moments(data, **settings)
    row_ids, places = readable(data, made)
    assert len(row_ids) > 20
    assert (np.diff(row_ids) > 0).all()
    clock = np.arange(len(data.events)) if data.timestamps is None else data.timestamps
    best = {}
    for row, place in zip(data.positions_of(row_ids), places, strict=True):
        told = range(made.starts[place], made.newest[place] + 1)
        assert made.users[place] == data.row_sequences[row]
        assert all(data.offsets[made.users[place]] <= event < data.row_events[row] for event in told)
        assert max(clock[event] for event in told) < clock[data.row_events[row]]
        best[row] = place
    for row in range(len(data.row_ids)):  # and each reads the newest text it may
        mine = [
            k
            for k in range(len(made))
            if made.users[k] == data.row_sequences[row]
            and clock[made.newest[k]] < clock[data.row_events[row]]
        ]
        assert best.get(row) == (max(mine, key=lambda k: made.newest[k]) if mine else None)


@pytest.mark.parametrize("shop", SHOPS)
def test_nothing_held_out_is_told_at_a_share_of_training(shops, shop):
    data = shops[shop]
    made = moments(data, (0.25, 1.0), most=99)
    held = set(data.row_events[np.concatenate([data.rows("valid"), data.rows("test")])].tolist())
    told = {e for k in range(len(made)) for e in range(made.starts[k], made.newest[k] + 1)}
    assert told
    assert not told & held
    if shop.startswith("by time"):
        first = min(data.timestamps[e] for e in held)
        later = {e for e in told if data.timestamps[e] >= first}
        assert all(data.train_event_mask[e] for e in later)


def test_kars_moment_is_half_of_the_training_events_and_at_most_the_cap(plain):
    made = moments(plain, (0.5,), most=3, keep="first")
    for user, start, newest in zip(made.users, made.starts, made.newest, strict=True):
        training = int(plain.train_event_mask[plain.offsets[user] : plain.offsets[user + 1]].sum())
        assert start == plain.offsets[user]
        assert newest - start + 1 == min(-(-training // 2), 3)


def test_moments_that_tell_no_title_are_left_out(plain):
    frame = plain.catalogue.frame.with_columns(
        title=pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("")).otherwise(pl.col("title"))
    )
    data = dataclasses.replace(plain, catalogue=type(plain.catalogue)(frame))
    made = moments(data, (0.5,), most=2)
    assert 0 < len(made) < len(moments(plain, (0.5,), most=2))
    assert all(any(item >= 20 for item in made.told(data, k)) for k in range(len(made)))


@pytest.mark.parametrize("wrong", [{"cuts": (0.0,)}, {"cuts": (1.5,)}, {"most": 0}, {"keep": "middle"}])
def test_moments_that_are_not_possible_are_refused(plain, wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        moments(plain, **wrong)


def test_prompts_tell_titles_and_factors():
    for name in DOMAINS:
        words = domain(name)
        text = kar_user(words, ["A b", "C d"])
        assert told_titles(text) == ["A b", "C d"]
        assert all(factor in text and factor in kar_item(words, "A b") for factor in words.factors)
        assert told_titles(slim_user(words, ["A b"]))[0] == "A b"
    assert domain("toys", ["colour"]).factors == ("colour",)
    with pytest.raises(ConfigError, match="Did you mean 'toys'"):
        domain("toy")


def test_prompts_drop_the_oldest_titles_until_they_fit():
    render = lambda titles: " ".join(titles)  # noqa: E731
    assert fitted(render, ["a", "b", "c"], str.split, 2) == "b c"
    assert fitted(render, ["a", "b", "c"], None, 1) == "a b c"
    with pytest.raises(ConfigError, match="takes 1 tokens with one title"):
        fitted(render, ["a", "b"], str.split, 0)


RATIONALE = {
    "preferences": "space stories",
    "categories": ["models", "NASA"],
    "items": ["Rocket", "Moon base"],
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RATIONALE),
        json.dumps(RATIONALE, indent=2),
        f"Sure! Here it is:\n```json\n{json.dumps(RATIONALE)}\n```\nHope that helps {{smile}}.",
        json.dumps(
            {
                "Preference": ["space stories"],
                "categories": "models",
                "brands": ["NASA"],
                "Items": RATIONALE["items"],
            }
        ),
        "1. Preferences: space stories\n2. Categories: models, NASA\n3. Items: Rocket; Moon base",
        "**Step 1: Preferences:** space stories\n**Step 2: Categories:**\n- models\n- NASA\n"
        "**Step 3: Items:**\n- Rocket\n- Moon base",
    ],
)
def test_every_shape_of_an_answer_gives_the_same_steps(text):
    found = parse_rationale(text)
    assert found.texts == ("space stories", "models, NASA", "Rocket, Moon base")
    assert found.raw == text
    assert json.loads(found.label) == RATIONALE


def test_an_answer_that_is_cut_anywhere_keeps_what_is_whole():
    whole = json.dumps(RATIONALE)
    for end in range(len(whole)):
        found = parse_rationale(whole[:end])
        for name, value in zip(("preferences", "categories", "items"), found.texts, strict=True):
            full = RATIONALE[name] if isinstance(RATIONALE[name], str) else ", ".join(RATIONALE[name])
            if end > 18:
                assert full.startswith(value), (end, name, value)
    assert parse_rationale(whole[: whole.index("Moon") + 3]).items == ("Rocket", "Moo")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "}{",
        '{"a": ',
        "[" * 5000,
        '{"items": ' + "[" * 50_000,
        "```",
        "null",
        '{"preferences": {"x": [1, null, true]}}',
        "\x00",
        '"\\',
    ],
)
def test_nothing_breaks_the_parser(text):
    found = parse_rationale(text)
    assert found.raw == text
    assert json.loads(found.label).keys() == RATIONALE.keys()


def test_prose_is_the_first_step():
    assert parse_rationale("This person\nlikes rockets.").texts == ("This person likes rockets.", "", "")


@pytest.mark.parametrize("name", ["tfidf", "network"])
def test_the_same_text_has_the_same_vector_on_both_sides_and_after_loading(tmp_path, name):
    from tiny_encoder import save_encoder

    if name == "network":
        save_encoder(tmp_path / "enc")
    texts = [f"saga {k} part {k % 3} colour" for k in range(20)]
    encoder = make_encoder("tfidf" if name == "tfidf" else str(tmp_path / "enc"), texts, tmp_path / "cache")
    one = encoder.encode([texts[3], "", texts[3]])
    np.testing.assert_array_equal(one[0], one[2])
    assert not one[1].any()
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved")
    again = load_encoder(tmp_path / "saved").encode(["saga 7 of nowhere", texts[3]])
    np.testing.assert_allclose(again[1], one[0], atol=1e-5)
    assert np.isfinite(again).all()
    if name == "network":
        long = " ".join(["part", *["of"] * 300])
        pieces = [" ".join(long.split()[k : k + 120]) for k in range(0, 301, 120)]
        np.testing.assert_allclose(encoder.encode([long])[0], encoder.encode(pieces).mean(0), atol=1e-5)


def speak(prompt):
    return rationale(prompt) if told_titles(prompt) else "about " + prompt.split('"')[1]


def test_kar_asks_once_keeps_everything_and_is_deterministic(plain, tmp_path):
    big = Says(speak)
    words = make_words(Kar(most=4), Work(plain, big, tmp_path / "t"))
    made = moments(plain, (0.5,), most=4)
    assert len(big.asked) == ITEMS + len(made)
    assert [request.key for request in big.asked][:ITEMS] == list(range(ITEMS))  # items first
    assert words.maker == "kar"
    assert words["user_vectors"].shape[0] == len(made)
    assert words["item_vectors"].shape == (ITEMS, words["user_vectors"].shape[1])
    users = words.table("users")
    assert users["text"].to_list() == [rationale(r.prompt) for r in big.asked[ITEMS:]]
    assert users["user"].to_list() == made.users.tolist()
    before = (tmp_path / "t" / "words.safetensors").read_bytes()
    again = Says(speak)
    make_words(Kar(most=4), Work(plain, again, tmp_path / "t"))
    assert not again.asked
    assert (tmp_path / "t" / "words.safetensors").read_bytes() == before
    other = Says(speak)
    make_words(Kar(most=4), Work(plain, other, tmp_path / "other"))
    assert (tmp_path / "other" / "words.safetensors").read_bytes() == before


def test_a_run_that_is_killed_goes_on_and_asks_nothing_twice(plain, tmp_path):
    count = 0

    def dies(prompt):
        nonlocal count
        count += 1
        if count == ITEMS + 7:
            raise KeyboardInterrupt
        return speak(prompt)

    with pytest.raises(KeyboardInterrupt):
        make_words(Kar(most=4), Work(plain, Says(dies), tmp_path / "t"))
    with pytest.raises(RunError, match="no manifest"):
        load_words(tmp_path / "t")
    rest = Says(speak)
    make_words(Kar(most=4), Work(plain, rest, tmp_path / "t"))
    assert len(rest.asked) == len(moments(plain, (0.5,), most=4)) - 6
    whole = Says(speak)
    make_words(Kar(most=4), Work(plain, whole, tmp_path / "whole"))
    for name in ("words.safetensors", "users.parquet", "answers/users/generations.jsonl"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_failed_and_empty_answers_are_recorded_masked_and_asked_again(plain, tmp_path):
    def moody(prompt):
        if not told_titles(prompt):
            return {"0": None, "1": "", "2": " ... "}.get(prompt.split("part ")[1][0], speak(prompt))
        return None if told_titles(prompt)[0].endswith("part 3") else speak(prompt)

    words = make_words(Kar(most=4), Work(plain, Says(moody), tmp_path / "t"))
    items = words.table("items")
    assert items["problem"].to_list()[:4] == ["failed: refused", "empty answer", "no word in the answer", ""]
    assert not words["item_vectors"][:3].any()
    assert words["item_vectors"][3].any()
    users = words.table("users")
    bad = users.filter(pl.col("problem") != "")
    assert 0 < bad.height < users.height
    assert bad["text"].to_list() == [""] * bad.height
    row_ids, places = words["row_ids"], words["places"]
    read = words["newest_event"][places]
    assert not set(read.tolist()) & set(bad["newest_event"].to_list())
    assert len(row_ids) < len(readable(plain, moments(plain, (0.5,), most=4))[0])
    again = Says(speak)
    mended = make_words(Kar(most=4), Work(plain, again, tmp_path / "t"))
    failed = items.filter(pl.col("problem") == "failed: refused").height
    assert len(again.asked) == failed + bad.height  # an empty answer is an answer: it is not asked again
    assert mended.table("users").filter(pl.col("problem") != "").height == 0


def test_a_folder_that_tells_a_row_its_answer_is_refused(plain, tmp_path):
    words = make_words(Kar(most=4, items=False), Work(plain, Says(speak), tmp_path / "t"))
    arrays = {name: np.array(words[name]) for name in words.arrays}
    rows = plain.positions_of(arrays["row_ids"])
    for name, wrong in (
        ("newest_event", plain.row_events[rows][0]),
        ("users", arrays["users"][arrays["places"][0]] + 1),
    ):
        bad = {**arrays, name: arrays[name].copy()}
        bad[name][arrays["places"][0]] = wrong
        with pytest.raises(KnowledgeError, match="would use a text"):
            Words("kar", bad).check(plain)
        with pytest.raises(KnowledgeError, match="would use a text"):
            save_words(Words("kar", bad), tmp_path / "bad", plain, {})
    later = dataclasses.replace(plain, timestamps=np.zeros(len(plain.events), dtype=np.int64))
    with pytest.raises(KnowledgeError, match="would use a text"):
        words.check(later)
    with pytest.raises(FingerprintError):
        load_words(tmp_path / "t", ring_dataset(30, 12, seed=4))


def test_other_models_prompts_and_folders_are_refused(plain, tmp_path):
    make_words(Kar(most=4), Work(plain, Says(speak), tmp_path / "t"))
    with pytest.raises(KnowledgeError, match="other settings"):
        make_words(Kar(most=4), Work(plain, Says(speak, "2"), tmp_path / "t"))
    with pytest.raises(KnowledgeError, match="other settings"):
        make_words(Kar(most=4, domain="toys"), Work(plain, Says(speak), tmp_path / "t"))
    with pytest.raises(RunError, match="rationales of 'kar'"):
        make_words(Slim(), Work(plain, Says(speak), tmp_path / "t"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").touch()
    with pytest.raises(RunError, match="in the way"):
        make_words(Kar(), Work(plain, Says(speak), tmp_path / "x"))


def test_the_recorded_answers_replay_without_the_model(plain, tmp_path):
    make_words(Kar(most=4, items=False), Work(plain, Says(speak), tmp_path / "t"))
    scripted = ScriptedGenerator(tmp_path / "t" / "answers" / "users")
    words = make_words(Kar(most=4, items=False), Work(plain, scripted, tmp_path / "again"))
    np.testing.assert_array_equal(words["user_vectors"], load_words(tmp_path / "t")["user_vectors"])


def test_both_sides_replay_from_a_folder_of_answers_by_kind(plain, tmp_path):
    first = make_words(Kar(most=4), Work(plain, Says(speak), tmp_path / "t"))
    answers = tmp_path / "t" / "answers"
    files = tmp_path / "files"
    files.mkdir()
    for kind in ("items", "users"):
        (files / f"{kind}.jsonl").write_bytes((answers / kind / "generations.jsonl").read_bytes())
    for number, place in enumerate((answers, files)):
        again = make_words(Kar(most=4), Work(plain, ScriptedGenerator(place), tmp_path / f"again{number}"))
        np.testing.assert_array_equal(again["user_vectors"], first["user_vectors"])
        np.testing.assert_array_equal(again["item_vectors"], first["item_vectors"])
    (files / "users.jsonl").unlink()
    with pytest.raises(KnowledgeError, match=r"no answers to 'users'.*users\.jsonl"):
        make_words(Kar(most=4), Work(plain, ScriptedGenerator(files), tmp_path / "half"))


def test_the_cost_counts_what_is_not_answered_yet(plain, tmp_path):
    work = Work(plain, Says(speak), tmp_path / "t", answer_tokens=100)
    asked = Kar(most=4).asks(work)
    total = sum(map(len, asked.values()))
    lines = dict(planned_cost(work, asked, prompt_price=1.0, answer_price=10.0))
    assert lines["prompts"].startswith(f"{total:,} ({ITEMS} items")
    assert lines["tokens written"] == f"{100 * total:,} at most"
    read = sum(len(r.prompt) for part in asked.values() for r in part) // 4
    assert lines["price"] == f"{(read + 10 * 100 * total) / 1e6:,.2f} at most"
    make_words(Kar(most=4, users=False), work)
    assert dict(planned_cost(work, asked))["prompts"].endswith(f"{ITEMS} answered before")


def test_slim_without_a_small_model_parses_and_keeps_the_steps(plain, tmp_path):
    words = make_words(Slim(), Work(plain, Says(rationale), tmp_path / "t"))
    users = words.table("users")
    assert words["user_vectors"].shape[:2] == (users.height, 4)
    assert users["preferences"][0].startswith("likes Saga")
    assert users["items"][0].to_list()[0].endswith("part 1")
    assert words.manifest["steps_said"] == dict.fromkeys(("preferences", "categories", "items"), users.height)
    encoder = load_encoder(tmp_path / "t" / "encoder")
    np.testing.assert_allclose(
        words["user_vectors"][0, 0], encoder.encode([users["preferences"][0]])[0], atol=1e-6
    )
    np.testing.assert_allclose(
        words["item_vectors"][5], encoder.encode([plain.catalogue.titles[5]])[0], atol=1e-6
    )


def test_slim_teaches_a_small_model_which_then_writes_for_everybody(plain, tmp_path):
    from recdistill.runs import read_manifest
    from tiny_lm import tiny_lm

    small = tiny_lm("llama", extra=tuple(plain.catalogue.titles))
    folder = tmp_path / "lm"
    small.model.config.max_position_embeddings = 1024
    small.model.save_pretrained(folder)
    small.tokenizer.save_pretrained(folder)
    tuning = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "max_tokens": 900,
        "precision": "float32",
        "method": "full",
    }
    chosen = Slim(teacher_texts=12, small=str(folder), tuning=tuning, small_tokens=24, most=3)
    big = Says(rationale)
    work = Work(plain, big, tmp_path / "t")
    words = make_words(chosen, work)
    assert len(big.asked) == 12
    facts = read_manifest(tmp_path / "t" / "small", "adapter")
    losses = [record["train"] for record in facts["history"]]
    assert losses[-1] < losses[0]
    assert words.table("users").height == len(moments(plain, (0.5, 1.0), most=3, keep="last"))
    again = Says(rationale)
    make_words(chosen, Work(plain, again, tmp_path / "t"))
    assert not again.asked
    small.model.config.max_position_embeddings = 256


def test_the_label_of_distillation_is_the_rationale_and_its_end_alone():
    from recdistill.teachers.finetuning import FinetuneOptions
    from recdistill.teachers.finetuning.texts import text_examples
    from tiny_lm import tiny_lm

    lm = tiny_lm()
    pairs = [
        ("Ask one:\nAnswer:\n", '{"items": ["Star"]}'),
        ("Another, longer question:\nAnswer:\n", "Alien"),
    ]
    made = text_examples(lm, pairs, FinetuneOptions(max_tokens=128))
    batch = made.batch(0, np.arange(2))
    for row, (prompt, answer) in enumerate(pairs):
        start, stop = made.offsets[row], made.offsets[row + 1]
        tokens = made.tokens[start:stop].tolist()
        assert tokens == [*lm.encode(prompt), *lm.encode_answer(answer), lm.eos_id]
        assert made.prompts[row] == len(lm.encode(prompt))
        learned = batch.labels[row][batch.labels[row] >= 0].tolist()
        assert learned == [*lm.encode_answer(answer), lm.eos_id]


def test_makers_are_found_by_name_with_their_options():
    assert set(MAKERS) >= {"kar", "slim"}
    assert maker(MAKERS, "kar", {"cuts": [0.5, 1], "domain": "toys"}).words.items == "toys"
    for name, options in (
        ("kr", {}),
        ("kar", {"cut": 1}),
        ("kar", {"users": False, "items": False}),
        ("slim", {"teacher_texts": -1}),
    ):
        with pytest.raises(ConfigError):
            maker(MAKERS, name, options)


def test_the_fixture_shop_is_as_the_tests_need_it(shops):
    assert isinstance(shops["by time"], SequenceDataset)
    assert (np.diff(shops["ties"].timestamps) == 0).any()
