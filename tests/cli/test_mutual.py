"""`recdistill mutual` with a language model folder, as a user runs it, and what it may be told."""

import json

import pytest
import torch

from command import call
from recdistill.config import read_config
from recdistill.config.mutual import recipe_of, resolve_mutual
from recdistill.errors import ConfigError, RecdistillError
from recdistill.train.mutual import MutualOptions
from shop import ring_dataset

FLAGS = {"dataset": "d", "student": {"name": "sasrec"}}
SMALL = [
    "train.epochs=2", "train.learning_rate=5e-3", "student.length=8", "student.embedding_size=16", "sasrec.blocks=1",
    "top_m=10", "teacher.epochs=1", "teacher.batch_tokens=200", "teacher.head_size=8",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset folder, and the folder of a tiny Llama with a word tokenizer."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    home = tmp_path_factory.mktemp("mutual")
    ring_dataset(users=30).save(home / "d")
    names = ["<s>", "</s>", "<unk>", "Saga", "part"]
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(home / "lm")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(home / "lm")
    return home


def test_the_command_leaves_an_ordinary_run_and_rounds_that_can_be_compared(home, tmp_path):
    out = tmp_path / "r"
    told = ["mutual", "--dataset", home / "d", "--model", home / "lm", "--out", out, "--rounds", 1, *SMALL]
    said = call(*told, "--seeds", 2)
    for words in ("round 0 on validation", "round 1: the language model learns", "compare"):
        assert words in said
    for seed in (0, 1):
        run = out / f"seed-{seed}"
        assert read_config(run / "config.yaml").recipe == "mutual, one round"
        assert [json.loads(line)["round"] for line in (run / "metrics.jsonl").open()] == [0, 1]
    first, second = ((out / f"seed-{k}" / "best" / "model.safetensors").read_bytes() for k in (0, 1))
    assert first != second
    assert "mutual, one round" in call("evaluate", out)
    table = call("compare", out, "--rounds", "--no-baselines", "--no-slices")
    for line in ("sasrec (modern, ce)", "one round, round 1", "its LM (teacher)"):
        assert line in table
    assert "Saga" in call("recommend", out, "--history", "Saga 0 part 0", "-k", 3)
    with pytest.raises(RecdistillError, match=r"other settings \(lambda_student\)"):
        call(*told, "--seeds", 2, "lambda_student=0.5")
    with pytest.raises(RecdistillError, match="no rounds"):
        call("compare", out / "seed-0" / "rounds" / "1" / "student", "--rounds")


def test_the_student_may_form_its_item_vectors_from_the_same_text(home, tmp_path):
    told = ["mutual", "--dataset", home / "d", "--model", home / "lm", "--rounds", 1, *SMALL]
    told += ["item_encoder.name=collaborative", "weights=none"]
    call(*told, "--out", tmp_path / "r")
    config = read_config(tmp_path / "r" / "config.yaml")
    assert config.item_encoder.name == "collaborative"
    assert "Saga" in call("recommend", tmp_path / "r", "--history", "Saga 0 part 0", "-k", 3)
    with pytest.raises(RecdistillError, match="Pass --item-text tfidf"):
        call(*told, "--out", tmp_path / "other", "--item-text", "none")
    with pytest.raises(RecdistillError, match="Did you mean 'collaborative'"):
        call(*told, "--out", tmp_path / "other", "item_encoder.name=colaborative")
    with pytest.raises(RecdistillError, match="items and history alone"):
        call(*told, "--out", tmp_path / "other", "words.folder=t")


def test_a_language_model_that_cannot_read_a_history_is_refused_before_training(home, tmp_path):
    words = ["mutual", "--dataset", home / "d", "--model", home / "lm", "--out", tmp_path / "r", *SMALL]
    instruction = " ".join(["Saga"] * 130)
    with pytest.raises(RecdistillError, match="takes 1"):
        call(*words, "--instruction", instruction)


def test_words_reach_both_models():
    config, options, teacher = resolve_mutual(
        FLAGS,
        {"rounds": 2},
        ["weights=none", "lambda_teacher=2", "teacher.tune=lora", "teacher.learning_rate=1e-3", "sasrec.dropout=0.4",
         "train.epochs=7", "teacher.gradient_checkpointing=true"],
    )  # fmt: skip
    assert (options.rounds, options.weights, options.lambda_teacher) == (2, "none", 2.0)
    assert (teacher.tune, teacher.learning_rate, teacher.gradient_checkpointing) == ("lora", 1e-3, True)
    assert (config.student.options["dropout"], config.train.epochs) == (0.4, 7)
    assert config.recipe == "mutual, no weights"
    assert recipe_of(MutualOptions()) == "mutual"
    assert recipe_of(MutualOptions(rounds=1, ranks="folds")) == "mutual, ranks of folds, one round"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lambda_techer=1", "Did you mean 'lambda_teacher'"),
        ("trian.epochs=1", "Did you mean 'train'"),
        ("train.epoch=1", "Did you mean 'epochs'"),
        ("teacher.epoch=1", "Did you mean 'epochs'"),
        ("teacher.folds=2", "unknown option of the teacher 'folds'"),
        ("teacher.epochs=many", "Allowed: a value like 10"),
        ("rounds=1.5", "Allowed: a value like 3"),
        ("refresh=2", "Allowed: a value like True"),
        ("weights", "Write key=value"),
        ("knowledge=k", "each round makes its own"),
        ("words.name=kar", "cannot be set in mutual teaching"),
        ("train.coverage=skip", "each partner answers all rows"),
        ("train.walks=true", "its partner writes none"),
        ("train.prior=pick", "its partner would learn from scores without it"),
        ("dataset=e", "it is said by --dataset"),
        ("ranks=fold", "Did you mean 'folds'"),
    ],
)
def test_mistakes_are_explained(word, message):
    with pytest.raises(ConfigError, match=message):
        resolve_mutual(FLAGS, {}, [word])
