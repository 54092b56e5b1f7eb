from pathlib import Path

import numpy as np
import pytest

from recdistill.config import RunConfig, build_model, describe, read_config, resolve, write_config
from recdistill.errors import ConfigError
from recdistill.knowledge import Knowledge

FLAGS = {"dataset": "d"}


def config(
    *words: str, strategy: str | None = None, file: Path | None = None, variant: str = "modern"
) -> RunConfig:
    return resolve({**FLAGS, "student": {"variant": variant}}, strategy=strategy, file=file, words=words)


def test_variants_differ_as_the_papers_do() -> None:
    paper, modern = config(variant="paper"), config(variant="modern")
    assert (paper.student.tied, paper.loss.name, paper.train.supervision) == (False, "bce", "last")
    assert (modern.student.tied, modern.loss.name, modern.train.supervision) == (True, "ce", "all")


def test_words_reach_sections_and_parts() -> None:
    made = config(
        "train.epochs=3",
        "sasrec.dropout=0.4",
        "sasrec.length=20",
        "importance.weight=0.9",
        "importance.gamma_confidence=0",
        "collaborative.offset=false",
        strategy="dllm2rec",
    )
    assert made.train.epochs == 3
    assert made.student.options["dropout"] == 0.4
    assert made.student.length == 20
    assert made.strategies[0].weight == 0.9
    assert made.strategies[0].options["gamma_confidence"] == 0
    assert made.item_encoder.options["offset"] is False


def test_file_lies_under_flags_and_words(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {epochs: 7, patience: 2}\nseed: 5\n")
    made = config("train.patience=3", file=file)
    assert (made.train.epochs, made.train.patience, made.seed) == (7, 3, 5)


def test_strategies_join() -> None:
    made = config("rd.weight=0.2", strategy="rd+hint")
    assert [(s.name, s.weight) for s in made.strategies] == [("rd", 0.2), ("hint", 0.5)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epoch=3"], "Did you mean 'epochs'"),
        (["trian.epochs=3"], "unknown key 'trian.epochs'"),
        (["train.epochs=-1"], "train.epochs"),
        (["train.epochs"], "Write key=value"),
        (["train.epochs=[1"], "not valid YAML"),
        (["seed.x=1"], "seed"),
        (["filter_seen=perhaps"], "filter_seen"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*words)


def test_unknown_strategy_variant_and_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dllm2rec"):
        config(strategy="dllm2rek")
    with pytest.raises(ConfigError, match="unknown variant"):
        config(variant="moderm")
    with pytest.raises(ConfigError, match="cannot be read"):
        config(file=tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="no mapping"):
        config(file=tmp_path / "list.yaml")


def test_a_written_config_reads_back(tmp_path: Path) -> None:
    made = config(strategy="dllm2rec-corrected")
    write_config(made, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == made
    assert describe(made) == "sasrec (modern, ce) + dllm2rec-corrected"
    assert describe(config("label=ours")) == "ours"
    assert describe(config(strategy="none")) == "sasrec (modern, ce)"
    assert describe(made.model_copy(update={"recipe": None})).endswith("importance + collaborative")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")), ids=lambda p: p.name
)
def test_example_configs_can_be_built(file: Path) -> None:
    made = resolve(FLAGS, strategy=None, file=file, words=[])
    knowledge = Knowledge(
        row_ids=np.arange(2),
        item_count=30,
        item_embeddings=np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32),
    )
    assert build_model(made, 30, knowledge).tied is made.student.tied


def test_a_recipe_brings_student_loss_and_training_and_words_have_the_last_say() -> None:
    made = resolve(FLAGS, strategy=None, file=None, words=["rrd.weight=0.05", "train.epochs=3"], whole="best")
    assert (made.loss.name, made.item_encoder.name, made.recipe) == ("sampled_ce", "collaborative", "best")
    assert [(term.name, term.weight) for term in made.strategies] == [("rrd", 0.05)]
    assert (made.train.epochs, made.train.learning_rate, made.student.tied) == (3, 2e-3, True)
    only = config(strategy="best")
    assert (only.loss.name, only.train.learning_rate, only.strategies[0].name) == ("ce", 1e-3, "rrd")


def test_a_recipe_for_a_whole_run_is_one_that_says_more_than_a_strategy() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe for a whole run 'rd'. Allowed: best"):
        resolve(FLAGS, strategy=None, file=None, words=[], whole="rd")
    with pytest.raises(ConfigError, match="--recipe best and --strategy rd both say"):
        resolve(FLAGS, strategy="rd", file=None, words=[], whole="best")
