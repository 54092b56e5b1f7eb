"""LLM-CF as a user calls it: from answers in a file to recommendations for a history that no row has."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from command import call
from recdistill.data.interactions import Interactions
from recdistill.data.prepare import prepare
from recdistill.errors import RecdistillError
from recdistill.export import Recommender
from recdistill.knowledge import load_words
from recdistill.runs import read_json

TITLES = [f"Saga {item // 5} part {item % 5}" for item in range(40)]
SMALL = ["train.epochs=2", "student.embedding_size=16", "student.length=8", "train.batch_size=64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset of walks through sagas, answers to all its training rows, and what came of them."""
    path = tmp_path_factory.mktemp("llm-cf")
    rng = np.random.default_rng(0)
    users = np.sort(rng.integers(0, 40, 500))
    frame = {"user_id": users, "item_id": rng.integers(0, 40, 500), "timestamp": rng.integers(0, 200, 500)}
    items = pl.DataFrame({"item_id": range(40), "title": TITLES})
    data = prepare(Interactions.from_frame(frame), items, split="global-time", window=5)
    data.save(path / "d")
    lines = [
        {
            "row_id": int(row),
            "prompt": "",
            "texts": [f"The person likes part {row % 5} of every saga. It fits."],
            "scores": [],
        }
        for row in data.row_ids
    ]
    (path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scripted = ["--backend", "scripted", "--model", path / "answers.jsonl", "--dataset", path / "d"]
    said = call("rationales", "llm-cf", *scripted, "--out", path / "t", "share=0.3", "domain=books")
    assert "0 without (masked)" in said
    assert "--strategy llm-cf --knowledge" in said
    return path


def run(folder, name, *words, strategy="llm-cf"):
    knowledge = [] if strategy == "none" else ["--knowledge", folder / "t"]
    out = ["--out", folder / name]
    call("distill", "--dataset", folder / "d", "--strategy", strategy, *knowledge, *out, *SMALL, *words)
    return Recommender.load(folder / name)


def scores(folder, recommender):
    from recdistill.data import SequenceDataset

    data = SequenceDataset.load(folder / "d")
    rows = data.rows("test")
    return recommender.scorer()(data.histories(rows, recommender.length), data.row_ids[rows])


def test_off_is_the_plain_student_and_on_is_not(folder):
    """The whole training too: with weight 0 and alpha 0 nothing of the decoder reaches the student."""
    plain = scores(folder, run(folder, "none", strategy="none"))
    off = scores(
        folder,
        run(folder, "off", "llm-cf.weight=0", "llm-cf.alpha=0", "llm-cf.dropout=0", "sasrec.dropout=0"),
    )
    same = scores(folder, run(folder, "none-0", "sasrec.dropout=0", strategy="none"))
    torch.testing.assert_close(off, same, atol=1e-6, rtol=0)
    on = scores(folder, run(folder, "on"))
    assert (on - plain).abs().max() > 1e-3
    line = json.loads((folder / "on" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < line["train"]["llmcf"] < 2
    assert line["train"]["total"] == pytest.approx(line["train"]["loss"] + line["train"]["llmcf"], abs=1e-5)


def test_evaluation_and_recommendation_need_no_folder_of_words(folder):
    run(folder, "on")
    (folder / "t").rename(folder / "moved")
    try:
        assert "NDCG@20" in call("evaluate", folder / "on")
        said = call(
            "recommend", folder / "on", "--history", TITLES[3], TITLES[11], TITLES[4], "-k", 3, "--json"
        )
    finally:
        (folder / "moved").rename(folder / "t")
    why = call("recommend", folder / "on", "--history", TITLES[3], TITLES[11], "-k", 1, "--explain", "--json")
    assert why.count("The person likes part") == 4
    assert why.count("did not take 'Saga") == 2
    found = [json.loads(line) for line in said.splitlines()]
    assert [line["rank"] for line in found] == [1, 2, 3]
    assert not {line["title"] for line in found} & {TITLES[3], TITLES[11], TITLES[4]}
    saved = read_json(folder / "on" / "best" / "config.json")["user_encoder"]
    assert saved["saved_as"] == "in_context"
    assert saved["options"]["weight"] == 0.1


def test_words_are_bound_to_their_dataset_and_system(folder, tmp_path):
    words = load_words(folder / "t")
    assert words.maker == "llm-cf"
    for arguments, said in (
        (["--strategy", "llm-cf"], "rationales llm-cf"),
        (["--strategy", "kar", "--knowledge", folder / "t"], "reads rationales of 'kar'"),
        (["--strategy", "llm-cf", "--knowledge", folder / "t", "llm-cf.alfa=1"], "alpha"),
        (["--strategy", "llm-cf", "--knowledge", folder / "t", "llm-cf.heads=3"], "is not possible"),
        (
            ["--strategy", "llm-cf", "--knowledge", folder / "t", "train.walks=true"],
            "of a teacher's walks there are",
        ),
    ):
        with pytest.raises(RecdistillError, match=said):
            call("distill", "--dataset", folder / "d", "--out", tmp_path / "r", *arguments, *SMALL)


def test_cost_and_prompts_are_shown_before_anything_is_asked(folder, tmp_path):
    scripted = ["--backend", "scripted", "--model", folder / "answers.jsonl", "--dataset", folder / "d"]
    said = call(
        "rationales", "llm-cf", *scripted, "--out", tmp_path / "t", "--dry-run", "domain=films", "answers=2"
    )
    assert "has watched some films" in " ".join(said.split())
    assert "tokens written" in said
    assert not (tmp_path / "t").exists()


def test_an_endpoint_is_asked_for_several_drawn_answers():
    from recdistill.cli.rationales import _generator
    from recdistill.teachers.rationales import Kar, LlmCf

    def body(chosen):
        drawn = getattr(chosen, "sampling", None)
        told = {
            "api": "chat",
            "api_key_env": "KEY",
            "concurrency": 1,
            "max_new_tokens": 20,
            "sampling": drawn,
        }
        return _generator("m", "http", base_url=["http://127.0.0.1:1/v1"], **told)[0].settings["body"]

    assert body(LlmCf()) == {"max_tokens": 20, "temperature": 0.6, "n": 3}
    assert body(LlmCf(answers=1, top_tokens=40)) == {"max_tokens": 20, "temperature": 0.6, "top_k": 40}
    assert body(LlmCf(answers=1, temperature=0)) == body(Kar()) == {"max_tokens": 20, "temperature": 0.0}
