import pytest

from command import call
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import RecdistillError
from recdistill.knowledge import load_knowledge


@pytest.fixture(scope="module")
def folder(walks, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "dataset"
    walks.save(path)
    return path


def teach(*arguments):
    return call("teach", *arguments)


def test_graph_writes_knowledge_and_stands_beside_the_baselines(folder, tmp_path):
    output = teach("graph", "--dataset", folder, "--out", tmp_path / "k", "--rank", 4, "--top-k", 10)
    knowledge = load_knowledge(tmp_path / "k", SequenceDataset.load(folder), check=True)
    assert knowledge.ranking.shape[1] == 10
    assert knowledge.item_embeddings.shape == (24, 4)
    assert knowledge.manifest["tuned"] is True
    for name in (
        "graph (this teacher)",
        "popularity",
        "transition",
        "graph + text",
        "HR@20",
        "seen items kept",
    ):
        assert name in output
    assert list((folder / "baselines").glob("graph-text-*/valid.parquet"))
    assert not list((folder / "baselines").glob("graph-text-*/test.parquet"))  # read once, by compare


def test_graph_takes_weights_and_needs_no_text(folder, tmp_path):
    options = ["--encoder", "none", "--no-tune", "--decay", "0.9", "--temperature", "0.5"]
    teach(
        "graph",
        "--dataset",
        folder,
        "--out",
        tmp_path / "k",
        *options,
        "--splits",
        "valid,test",
        "--filter-seen",
    )
    data = SequenceDataset.load(folder)
    knowledge = load_knowledge(tmp_path / "k", data, check=True)
    assert knowledge.item_embeddings is None
    assert knowledge.manifest["options"]["decay"] == 0.9
    assert knowledge.manifest["temperature"] == 0.5
    assert knowledge.coverage(data.row_ids[data.rows("train")]) == 0.0


def test_blend_weighs_its_signals_and_says_how(folder, tmp_path):
    output = teach("blend", "--dataset", folder, "--out", tmp_path / "k", "--rank", 4, "--top-k", 10)
    knowledge = load_knowledge(tmp_path / "k", SequenceDataset.load(folder), check=True)
    weights = knowledge.manifest["weights"]
    assert set(weights) == {"step 1", "step 2", "step 3", "sequence", "linear", "tfidf", "popularity"}
    assert knowledge.item_embeddings.shape == (24, 4)
    assert knowledge.manifest["encoder"] == "tfidf"
    low, more = weights["step 2"]
    assert f"step 2 {low:.3g} to {low + more:.3g}" in output
    assert "blend (this teacher)" in output
    assert knowledge.manifest["order_sensitivity"]["rows"] > 0


def test_blend_goes_without_signals_and_without_text(folder, tmp_path):
    less = ["step 3", "popularity", "linear", "evidence"]
    left_out = [word for name in less for word in ("--without", name)]
    options = [*left_out, "--encoder", "none", "--splits", "valid", "--walks", 0]
    output = teach("blend", "--dataset", folder, "--out", tmp_path / "k", *options)
    knowledge = load_knowledge(tmp_path / "k")
    weights = knowledge.manifest["weights"]
    assert set(weights) == {"step 1", "step 2", "sequence"}
    assert {added for _, added in weights.values()} == {0.0}
    assert f"step 2 {weights['step 2'][0]:.3g}," in output
    assert knowledge.item_embeddings is None
    with pytest.raises(RecdistillError, match="Did you mean 'sequence'"):
        teach("blend", "--dataset", folder, "--out", tmp_path / "other", "--without", "sequences")
    every = ["step 1", "step 2", "step 3", "sequence", "linear", "popularity"]
    with pytest.raises(RecdistillError, match="no signal is left"):
        teach(
            "blend", "--dataset", folder, "--out", tmp_path / "other", "--encoder", "none",
            *(word for name in every for word in ("--without", name)),
        )  # fmt: skip
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("whitening", ["zca", "raw"])
def test_embedding_writes_queries_and_items(folder, tmp_path, whitening):
    options = ["--epochs", 1, "--folds", 2, "--rank", 0, "--whitening", whitening, "--no-prefixes"]
    output = teach("embedding", "--dataset", folder, "--out", tmp_path / "k", *options)
    knowledge = load_knowledge(tmp_path / "k", SequenceDataset.load(folder), check=True)
    assert knowledge.metric == "dot"
    assert knowledge.query_embeddings.shape[1] == knowledge.item_embeddings.shape[1]
    assert "embedding (this teacher)" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--splits", "train,tests"], "Did you mean 'test'"),
        (["--whitening", "pcaa"], "Did you mean 'pca'"),
        (["--top-k", "0"], "Allowed"),
    ],
)
def test_mistakes_are_explained(folder, tmp_path, options, message):
    with pytest.raises(RecdistillError, match=message):
        teach("graph", "--dataset", folder, "--out", tmp_path / "k", "--no-tune", *options)


def test_a_folder_in_the_way_is_named_before_the_work(folder, tmp_path):
    (tmp_path / "note").write_text("")
    with pytest.raises(RecdistillError, match="--overwrite"):
        teach("graph", "--dataset", tmp_path / "no-dataset", "--out", tmp_path)
