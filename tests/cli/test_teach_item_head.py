"""`recdistill teach item-head` with a language model folder, as a user runs it."""

import pytest
import torch

from command import call, contents
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, RecdistillError
from recdistill.knowledge import load_knowledge
from recdistill.teachers.item_head.text import lm_text
from recdistill.teachers.language_model.loading import load_language_model
from shop import ring_dataset

SMALL = [
    "--epochs",
    2,
    "--folds",
    2,
    "--batch-tokens",
    200,
    "--learning-rate",
    0.03,
    "--lm-learning-rate",
    0.01,
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dataset folder, and the folder of a tiny Llama with a word tokenizer."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    home = tmp_path_factory.mktemp("item-head")
    ring = ring_dataset(users=40)
    ring.save(home / "d")
    names = ["<s>", "</s>", "<unk>", *sorted({w for t in ring.catalogue.titles for w in t.split()})]
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
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(home / "lm")
    return home


def teach(home, out, *options, model="lm"):
    arguments = ["--dataset", home / "d", "--model", home / model, "--out", out, *SMALL, *options]
    return call("teach", "item-head", *arguments)


def test_the_command_writes_knowledge_and_goes_on_where_it_was(folders, tmp_path):
    out = tmp_path / "k"
    some = teach(folders, out, "--top-k", 12, "--splits", "valid")
    assert "item-head (this teacher)" in some
    data = SequenceDataset.load(folders / "d")
    assert len(load_knowledge(out, data, check=True)) == len(data.rows("valid"))
    output = teach(folders, out, "--top-k", 12)
    known = load_knowledge(out, data, check=True)
    assert known.coverage(data.row_ids[data.rows("train")]) == 1.0
    assert known.ranking.shape[1] == 12
    assert known.manifest["encoder"] == "tfidf"
    assert known.manifest["options"]["tune"] == "full"
    for said in ("full tuning", "fold-1", "popularity", "of the probability", "no answer in training"):
        assert said in output
    before = (out / "knowledge.safetensors").read_bytes()
    teach(folders, out, "--top-k", 12)
    assert (out / "knowledge.safetensors").read_bytes() == before
    with pytest.raises(KnowledgeError, match="other settings"):
        teach(folders, out, "--top-k", 12, "--seed", 1)
    held = contents(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):  # the old one is not lost to a wrong name
        teach(folders, out, "--top-k", 12, "--seed", 1, "--overwrite", model="nowhere")
    assert contents(tmp_path) == held
    teach(folders, out, "--top-k", 12, "--seed", 1, "--overwrite", "--splits", "test")
    assert load_knowledge(out).manifest["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


@pytest.mark.parametrize(
    "options", [["--tune", "lora", "--item-text", "lm"], ["--item-text", "none", "--history", "both"]]
)
def test_other_ways_to_read_items(folders, tmp_path, options):
    if "lora" in options:
        pytest.importorskip("peft")
    output = teach(folders, tmp_path / "k", "--folds", 1, "--splits", "valid", *options)
    known = load_knowledge(tmp_path / "k", SequenceDataset.load(folders / "d"), check=True)
    assert known.manifest["encoder"] == ("lm:lm" if "lm" in options else None)
    assert known.manifest["cross_fitting"].startswith("none")
    assert "popularity" in output


def test_the_models_own_text_vectors_are_the_means_of_hidden_states(folders):
    lm = load_language_model(folders / "lm")
    titles = ["Saga 0 part 0", "Saga 0 part 1", "Saga 0", "", "Saga"]
    found = lm_text(lm, titles, batch_tokens=8)
    assert found.has_text.tolist() == [True, True, True, False, True]
    for title, vector in zip(titles, found.vectors, strict=True):
        if title:
            ids = torch.tensor([lm.encode(title)])
            mean = lm.model.model(ids).last_hidden_state[0].mean(0).detach()
            torch.testing.assert_close(torch.from_numpy(vector), mean, atol=1e-5, rtol=1e-4)
    with pytest.raises(RecdistillError, match="--item-text none"):
        lm_text(lm, ["", " "])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--history", "title"], "Did you mean 'titles'"),
        (["--tune", "lorra"], "Did you mean 'lora'"),
        (["--folds", "0"], "Allowed: from 1"),
        (["--top-k", "0"], "--top-k"),
        (["--splits", "tests"], "Did you mean 'test'"),
        (["--lora-targets", "x", "--tune", "lora"], "--lora-targets q_proj,v_proj"),
    ],
)
def test_mistakes_are_explained(folders, tmp_path, options, message):
    with pytest.raises(RecdistillError, match=message):
        teach(folders, tmp_path / "k", *options)


def test_what_is_in_the_way_is_never_deleted(folders, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    for options in ([], ["--overwrite"]):
        with pytest.raises(RecdistillError, match="in the way"):
            teach(folders, tmp_path, *options)
    with pytest.raises(RecdistillError, match="'dataset'"):
        teach(folders, folders / "d", "--overwrite")
    assert (tmp_path / "mine.txt").is_file()
    assert (folders / "d" / "rows.parquet").is_file()


def test_a_folder_without_a_model_is_named(folders, tmp_path):
    with pytest.raises(RecdistillError, match="lm train"):
        teach(folders, tmp_path / "k", model="d")
