import pytest

from command import call, contents
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, RunError
from recdistill.knowledge import audit_knowledge, load_knowledge
from shop import ring_dataset
from tiny_encoder import save_encoder

QUICK = ["--size", 8, "--last-items", 3, "--epochs", 1, "--titles-per-step", 16, "--rows-per-step", 64]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("bi")
    ring_dataset(30).save(path / "d")
    save_encoder(path / "encoder")
    return path


def teach(root, out, *options):
    given = ["--dataset", root / "d", "--model", root / "encoder", "--out", root / out, *QUICK, *options]
    return call("teach", "bi-encoder", *given)


def test_it_writes_knowledge_and_goes_on_where_it_was(root):
    output = teach(root, "k", "--top-k", 9)
    dataset = SequenceDataset.load(root / "d")
    known = load_knowledge(root / "k", dataset, check=True)
    assert known.ranking.shape == (len(dataset.row_ids), 9)
    assert known.query_embeddings.shape[1] == known.item_embeddings.shape[1] == 16  # two models
    for words in (
        "encoder: ",
        "2 model(s)",
        "fold-0",
        "(untrained ",
        "bi-encoder (this teacher)",
        "shuffled histories",
    ):
        assert words in output
    gates = {gate.name: gate.status for gate in audit_knowledge(known, dataset).gates}
    assert gates["order"] != "not asked"
    before = (root / "k" / "knowledge.safetensors").read_bytes()
    teach(root, "k", "--top-k", 9)  # nothing is left to do
    assert (root / "k" / "knowledge.safetensors").read_bytes() == before
    with pytest.raises(KnowledgeError, match="other settings"):
        teach(root, "k", "--top-k", 5)
    held = contents(root / "k")
    with pytest.raises(ConfigError, match="cannot be loaded"):  # the old one is not lost to a wrong name
        teach(root, "k", "--top-k", 5, "--overwrite", "--model", root / "nowhere")
    assert contents(root / "k") == held
    teach(root, "k", "--top-k", 5, "--overwrite")
    assert load_knowledge(root / "k", dataset).ranking.shape[1] == 5


def test_one_fold_says_what_it_leaves_out(root):
    output = teach(root, "half", "--folds", 1, "--tune", "none")
    assert "rows are left out: the model was trained on them" in output
    assert (root / "half" / "in_sft_sample.parquet").is_file()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--query", "pool"], ConfigError, "Did you mean 'pooled'"),
        (["--splits", "tests"], ConfigError, "Did you mean 'test'"),
        (["--model", "no-such-folder/here"], ConfigError, "cannot be loaded"),
        (["--folds", "0"], ConfigError, "recdistill teach bi-encoder --help"),
    ],
)
def test_mistakes_are_explained(root, options, error, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(error, match=message):
        teach(root, "wrong", *options)


def test_what_is_in_the_way_is_kept(root):
    (root / "notes").mkdir()
    (root / "notes" / "mine.txt").write_text("")
    with pytest.raises(RunError, match="in the way"):
        teach(root, "notes", "--overwrite")
    assert (root / "notes" / "mine.txt").is_file()
