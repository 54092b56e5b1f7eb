"""The command: three stages on one folder, stopped anywhere and started again."""

import json
import shutil
from contextlib import suppress

import numpy as np
import polars as pl
import pytest
import torch

from command import call, contents
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, RecdistillError, RunError
from recdistill.knowledge import load_knowledge
from recdistill.knowledge.official import export_official
from shop import ring_dataset
from tiny_lm import tiny_lm

#: As little as possible of everything.
_SMALL = """
--tune full --samples 40 --tuning epochs=2 --tuning batch_size=8 --tuning learning_rate=3e-3 --tuning warmup_steps=2
--tuning valid_rows=20 --order-rows 15 --beams 4 --rows 25 --whiten 16 --top-k 12
"""
SMALL = tuple(_SMALL.split())


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A dataset folder and a language model's folder."""
    place = tmp_path_factory.mktemp("bigrec")
    data = ring_dataset(users=40)
    data.save(place / "d")
    lm = tiny_lm(extra=tuple(data.catalogue.titles))
    lm.model.save_pretrained(place / "lm")
    lm.tokenizer.save_pretrained(place / "lm")
    return place


def teach(shop, out, *options, model="lm"):
    model = shop / model if isinstance(model, str) and model == "lm" else model
    given = ["--dataset", shop / "d", "--model", model, "--out", out, *options]
    return call("teach", "bigrec", *given)


@pytest.fixture(scope="module")
def taught(shop):
    output = teach(shop, shop / "k", *SMALL)
    return shop / "k", output


def test_the_whole_command_leaves_knowledge_and_says_what_it_is(shop, taught):
    folder, output = taught
    data = SequenceDataset.load(shop / "d")
    knowledge = load_knowledge(folder, data, check=True)
    assert knowledge.ranking.shape == (75, 12)  # 25 rows of each split
    assert (np.diff(knowledge.ranking_distance) >= 0).all()
    assert knowledge.query_embeddings.shape[1] == knowledge.item_embeddings.shape[1] == 16
    facts = knowledge.manifest["answer_facts"]
    assert facts["rows"] == 75
    assert facts["exact_titles"] == 1.0  # constrained beams write titles only
    assert knowledge.manifest["grounding"]["beam_rule"] == "beams_first"
    for part in (
        "bigrec (this teacher)",
        "popularity",
        "100.0% are titles",
        "tuned on them",
        "full fine-tuning on 40 rows",
    ):
        assert part in output
    sample = pl.read_parquet(folder / "in_sft_sample.parquet")
    assert sample.columns == ["row_id", "model"]
    assert set(sample["row_id"]) <= set(data.row_ids[data.rows("train")].tolist())
    assert len(sample) == 40
    learned = set(sample["row_id"]) & set(knowledge.row_ids.tolist())
    assert knowledge.manifest["answered_by_a_model_tuned_on_the_row"] == len(learned)
    assert knowledge.manifest["model_read_training_histories"] is False
    answers = [
        json.loads(line) for line in (folder / "generations/all/generations.jsonl").read_text().splitlines()
    ]
    assert [answer["row_id"] for answer in answers] == knowledge.row_ids.tolist()
    for answer, listed in zip(answers, knowledge.ranking[:, :4].tolist(), strict=True):
        assert [f'"{data.catalogue.titles[item]}"' for item in listed] == answer["texts"]


def test_knowledge_is_not_lost_to_a_wrong_model(shop, taught):
    held = contents(shop)
    with pytest.raises(ConfigError, match="recdistill lm train"):
        teach(shop, taught[0], *SMALL, "--overwrite", model=shop / "nothing")
    assert contents(shop) == held


def test_shuffled_histories_are_asked_and_compared(shop, taught):
    folder, output = taught
    data, knowledge = SequenceDataset.load(shop / "d"), load_knowledge(folder)
    record = knowledge.manifest["order_sensitivity"]
    lines = (folder / "generations/shuffled/generations.jsonl").read_text().splitlines()
    asked = [json.loads(line) for line in lines]
    assert 5 <= record["rows"] == len(asked) <= 15
    ids = [line["row_id"] for line in asked]
    assert set(data.row_splits[data.positions_of(ids)]) == {1}
    ranks = knowledge.target_rank[np.searchsorted(knowledge.row_ids, ids)]
    assert record["hr@20"] == pytest.approx((ranks < 20).mean())
    plain = {}
    for line in (folder / "generations/all/generations.jsonl").read_text().splitlines():
        plain[json.loads(line)["row_id"]] = json.loads(line)["prompt"]
    assert any(line["prompt"] != plain[line["row_id"]] for line in asked)  # another order, another prompt
    assert record["drop"] is None or "shuffled histories cost" in output


def test_killed_in_every_stage_the_files_are_the_same(shop, taught, tmp_path, monkeypatch):
    from recdistill.knowledge.shards import ShardWriter
    from recdistill.teachers.backends import HfGenerator

    folder, _ = taught
    out = tmp_path / "k"
    generate, append = HfGenerator.generate, ShardWriter.append

    def dies_answering(self, requests, progress=None):
        for count, answer in enumerate(generate(self, requests, progress)):
            if count == 30:
                raise Killed
            yield answer

    def dies_grounding(self, *given, **fields):
        append(self, *given, **fields)
        raise Killed

    for place, name, dies in (
        (HfGenerator, "generate", dies_answering),
        (ShardWriter, "append", dies_grounding),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, dies)
            with pytest.raises(Killed):
                teach(shop, out, *SMALL)
        assert not (out / "knowledge.safetensors").exists()
    teach(shop, out, *SMALL)
    for name in ("knowledge.safetensors", "generations/all/generations.jsonl", "in_sft_sample.parquet"):
        assert (out / name).read_bytes() == (folder / name).read_bytes(), name
    assert "adapters" in {path.name for path in out.iterdir()}


def test_two_workers_of_a_cluster_go_on_and_leave_the_same_bytes(shop, taught, tmp_path, monkeypatch):
    """Each stage is killed in this process and finished by workers; the other folder was never interrupted."""
    from recdistill.knowledge.shards import ShardWriter
    from recdistill.teachers.bigrec import teacher
    from recdistill.teachers.generation.answers import GenerationStore

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(teacher, "SHARD_ROWS", 20)
    small = (*SMALL, "--batch-tokens", "1500", "--order-rows", "0")
    folders = tmp_path / "spread", tmp_path / "local"
    for folder in folders:
        shutil.copytree(taught[0] / "adapters", folder / "adapters")
        shutil.copy(taught[0] / "in_sft_sample.parquet", folder)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for stage, place, most in (("generate", GenerationStore, 30), ("ground", ShardWriter, 1)):
            append, calls = place.append, []

            def dies(self, *given, append=append, calls=calls, most=most, **fields):
                if len(calls) == most:
                    raise Killed
                calls.append(1)
                append(self, *given, **fields)

            with monkeypatch.context() as patch:
                patch.setattr(place, "append", dies)
                with pytest.raises(Killed):
                    teach(shop, folders[0], *small, "--stage", stage)
            output = teach(shop, folders[0], *small, "--stage", stage, "--engine", "ray", "--workers", "2")
            if stage == "generate":
                assert "75 of 75 rows answered (30 of them before this run)" in output
            teach(shop, folders[1], *small, "--stage", stage)
    finally:
        ray.shutdown()
    for name in ("generations/all/generations.jsonl", "knowledge.safetensors"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "spark"], "unknown engine"),
        (["--engine", "ray", "--workers", "0"], "workers is 0"),
        (
            ["--engine", "ray", "--backend", "http", "--base-url", "http://127.0.0.1:1/v1"],
            "nothing to spread",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_said_before_the_work(shop, tmp_path, options, message):
    with pytest.raises(RecdistillError, match=message):
        teach(shop, tmp_path / "k", *options, "--stage", "generate")


def test_stages_can_be_run_one_by_one_with_other_choices(shop, tmp_path):
    out, options = (
        tmp_path / "k",
        (*SMALL, "--decode", "greedy", "--ground-encoder", "base", "--splits", "train"),
    )
    with pytest.raises(RunError, match="--stage finetune"):
        teach(shop, out, "--stage", "generate", *options)
    teach(shop, out, "--stage", "finetune", *options)
    assert not (out / "generations").exists()
    with pytest.raises(KnowledgeError, match="--stage generate"):
        teach(shop, out, "--stage", "ground", *options)
    teach(shop, out, "--stage", "generate", *options)
    teach(
        shop,
        out,
        "--stage",
        "ground",
        *options,
        "--inject",
        "popularity",
        "--gamma",
        "0.5",
        "--metric",
        "cosine",
    )
    manifest = load_knowledge(out).manifest
    assert manifest["injection"] == {"kind": "popularity", "gamma": 0.5, "zero_guard": 0.0}
    assert (manifest["metric"], manifest["encoder"]) == ("cosine", "lm (last token)")
    with pytest.raises(KnowledgeError, match="other settings"):
        teach(shop, out, "--stage", "ground", *options)
    output = teach(shop, out, *options, "--overwrite", "--tune", "none")
    assert "fine-tuning" not in output
    assert not (out / "adapters").exists()


def test_with_folds_no_row_is_answered_by_a_model_that_was_tuned_on_it(shop, tmp_path):
    out = tmp_path / "k"
    teach(shop, out, *SMALL, "--folds", "2", "--beams", "2")
    data, knowledge = SequenceDataset.load(shop / "d"), load_knowledge(out)
    assert knowledge.manifest["answered_by_a_model_tuned_on_the_row"] == 0
    assert {path.name for path in (out / "adapters").iterdir()} == {"fold-0", "fold-1", "all"}
    sample = pl.read_parquet(out / "in_sft_sample.parquet")
    for name in ("fold-0", "fold-1"):
        lines = (out / "generations" / name / "generations.jsonl").read_text().splitlines()
        answered = data.positions_of([json.loads(line)["row_id"] for line in lines])
        learned = data.positions_of(sample.filter(pl.col("model") == name)["row_id"].to_numpy())
        assert len(learned) == 40
        assert not set(data.row_sequences[answered]) & set(data.row_sequences[learned])


def test_an_endpoint_answers_and_a_local_model_grounds(shop, tmp_path):
    from misbehaving_server import running

    out = tmp_path / "k"
    with running() as server:
        options = ("--rows", "6", "--domain", "toys", "--decode", "greedy")
        http = ("--backend", "http", "--base-url", server.url, "--stage", "generate")
        output = teach(shop, out, *options, *http, model="served")
    assert "18 of 18 rows answered" in output
    teach(shop, out, *options, "--stage", "ground", "--tune", "none", "--ground-encoder", "base")
    knowledge = load_knowledge(out, SequenceDataset.load(shop / "d"), check=True)
    assert len(knowledge) == 18
    assert knowledge.manifest["answer_facts"]["exact_titles"] == 0.0


def test_the_authors_files_can_be_written(shop, tmp_path):
    out, data = tmp_path / "k", SequenceDataset.load(shop / "d")
    options = ("--tune", "none", "--beams", "2", "--splits", "train", "--no-prefixes", "--top-k", "10")
    teach(shop, out, *options)
    export_official(load_knowledge(out), tmp_path / "files", data, k=10, scaling="row")
    lists = np.loadtxt(tmp_path / "files" / "myrank_train.txt")
    assert lists.shape == (len(data.rows("train")), 10)


def test_a_model_made_from_the_histories_is_called_that(shop, tmp_path):
    import shutil

    shutil.copytree(shop / "lm", tmp_path / "lm")
    fingerprint = SequenceDataset.load(shop / "d").fingerprint
    manifest = {"kind": "language_model", "schema": 1, "settings": {"dataset_fingerprint": fingerprint}}
    (tmp_path / "lm" / "manifest.json").write_text(json.dumps(manifest))
    options = ("--tune", "none", "--decode", "greedy", "--max-new-tokens", "4", "--rows", "5")
    output = teach(shop, tmp_path / "k", *options, model=tmp_path / "lm")
    assert load_knowledge(tmp_path / "k").manifest["model_read_training_histories"] is True
    assert "made from all training histories" in output


def test_a_student_is_mixed_in_and_injected(shop, tmp_path):
    """With weight 0 for the language model, what is written is the student's best item."""
    from recdistill.export import Recommender
    from recdistill.item_encoders import Ids
    from recdistill.students import SASRec, SequenceModel

    data = SequenceDataset.load(shop / "d")
    torch.manual_seed(0)
    table = Ids(data.item_count, 8, std=1.0)
    model = SequenceModel(SASRec(embedding_size=8, max_length=10), table, table, bias=False).eval()
    spec = {"student": "sasrec", "options": {"embedding_size": 8, "max_length": 10}}
    recommender = Recommender.from_model(model, data, spec, 10)
    recommender.save(tmp_path / "run")
    options = ("--tune", "none", "--rows", "8", "--beams", "3", "--splits", "valid,test", "--order-rows", "0")
    teach(shop, tmp_path / "k", *options, "--student", tmp_path / "run", "--lm-weight", "0")
    knowledge = load_knowledge(tmp_path / "k")
    rows = data.positions_of(knowledge.row_ids)
    best = recommender.scorer()(data.histories(rows, 10)).argmax(1)
    np.testing.assert_array_equal(knowledge.ranking[:, 0], best.numpy())
    assert knowledge.manifest["generations"]["all"]["student"].startswith("run ")
    more = ("--inject", tmp_path / "run", "--zero-guard", "0.1")
    teach(shop, tmp_path / "injected", *options, *more)
    injection = load_knowledge(tmp_path / "injected").manifest["injection"]
    assert injection["kind"].startswith("collaborative:run ")
    assert injection["zero_guard"] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "grund"], "Did you mean 'ground'"),
        (["--preset", "moderne"], "Did you mean 'modern'"),
        (["--backend", "https"], "Did you mean 'http'"),
        (["--backend", "http"], "--base-url"),
        (["--backend", "http", "--base-url", "http://x/v1"], "gives no vectors"),
        (["--backend", "http", "--base-url", "http://x/v1", "--decode", "beam"], "greedy"),
        (["--backend", "http", "--base-url", "http://x/v1", "--stage", "finetune"], "tunes nothing"),
        (["--samples", "0"], "--samples"),
        (["--folds", "0"], "--folds"),
        (["--order-rows", "-1"], "--order-rows"),
        (["--tuning", "epochs"], "NAME=VALUE"),
        (["--tuning", "epoch=3"], "Did you mean 'epochs'"),
        (["--decode", "constraint"], "Did you mean 'constrained'"),
        (["--student", "run", "--decode", "beam"], "--decode constrained"),
        (["--ground-encoder", "tfidf"], "tfidf cannot ground"),
        (["--metric", "l3"], "unknown metric"),
        (["--inject", "nothing-there"], "is no run folder"),
        (["--domain", "toy"], "Did you mean 'toys'"),
        (["--select-row-ids", "rows.csv"], ".parquet or .json"),
    ],
)
def test_mistakes_are_said_before_the_work(shop, tmp_path, options, message):
    with pytest.raises(RecdistillError, match=message):
        teach(shop, tmp_path / "k", *options)
    assert not (tmp_path / "k").exists()


def test_a_folder_of_someone_else_is_left_alone(shop, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for more in ([], ["--overwrite"]):
        with pytest.raises(RunError, match=r"letter\.txt"):
            teach(shop, tmp_path, *SMALL, *more)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_model_that_is_not_there_is_explained(shop, tmp_path):
    with pytest.raises(ConfigError, match="recdistill lm train"), suppress(FileNotFoundError):
        teach(shop, tmp_path / "k", *SMALL, model=tmp_path / "nothing")
