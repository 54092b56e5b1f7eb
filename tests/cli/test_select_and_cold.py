"""Row selection and cold items from the command line, on a shop of toy size."""

import json
from pathlib import Path

import polars as pl
import pytest

from command import call, fails
from recdistill.data import SequenceDataset
from recdistill.knowledge import load_knowledge, read_row_ids

TINY = ["train.epochs=1", "train.batch_size=64", "student.embedding_size=16"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    shop = ["--users", 200, "--items", 90, "--cold-share", 0.2, "--split", "global-time"]
    call("data", "simulated", *shop, "--out", root / "d")
    call("teach", "graph", "--dataset", root / "d", "--out", root / "k", "--no-tune")
    common = ["--dataset", root / "d", *TINY]
    call("distill", "--strategy", "none", "--out", root / "plain", *common)
    return root


def test_rows_are_chosen_taught_and_learned_from(shop: Path) -> None:
    data = SequenceDataset.load(shop / "d")
    chosen = ["--dataset", shop / "d", "--out", shop / "rows.parquet"]
    said = call("knowledge", "select", "budget", *chosen, "--run", shop / "plain", "--count", 30)
    assert said.startswith("30 of ")
    ids = read_row_ids(shop / "rows.parquet")
    call(
        "teach", "graph", "--dataset", shop / "d", "--out", shop / "few", "--no-tune",
        "--select-row-ids", shop / "rows.parquet", "--splits", "train,valid",
    )  # fmt: skip
    taught = load_knowledge(shop / "few", data)
    train = data.row_ids[data.rows("train", prefixes=True)]
    assert taught.row_ids[taught.covers(taught.row_ids)].tolist() == sorted(
        [*ids, *data.row_ids[data.rows("valid")]]
    )
    assert set(ids) <= set(train)
    call(
        "distill", "--strategy", "rd", "--dataset", shop / "d", "--knowledge", shop / "few", *TINY,
        "--select", shop / "rows.parquet", "--out", shop / "taught",
    )  # fmt: skip
    assert "how: file" in (shop / "taught" / "config.yaml").read_text()
    band = call(
        "distill", "--strategy", "rd", "--dataset", shop / "d", "--knowledge", shop / "k", *TINY,
        "--select", "band", f"select.run={shop / 'plain'}", "--out", shop / "band",
    )  # fmt: skip
    assert "next: recdistill evaluate" in band


@pytest.mark.parametrize("how", ["band", "confidence", "random", "all"])
def test_every_way_writes_a_file(shop: Path, how: str, tmp_path: Path) -> None:
    words = ["--run", shop / "plain", "--knowledge", shop / "k", "--share", 0.3]
    said = call("knowledge", "select", how, "--dataset", shop / "d", "--out", tmp_path / "r.json", *words)
    assert f"{len(read_row_ids(tmp_path / 'r.json')):,} of" in said


def test_wrong_input_gets_a_message_that_helps(shop, capsys, monkeypatch) -> None:
    select = ["knowledge", "select"]
    there = ["--dataset", shop / "d", "--out", shop / "x.json"]
    assert "Did you mean 'budget'" in fails(capsys, monkeypatch, *select, "budge", *there)
    assert "select.run=r/" in fails(capsys, monkeypatch, *select, "band", *there)
    assert "share" in fails(capsys, monkeypatch, *select, "random", *there, "--share", 3)
    assert "select.how" in fails(
        capsys, monkeypatch, "distill", "--dataset", shop / "d", "--select", "bands", "--out", shop / "y"
    )
    unknown = fails(capsys, monkeypatch, "evaluate", shop / "plain", "--slice", "colder")
    assert "Did you mean 'cold'" in unknown


@pytest.mark.parametrize("encoder", ["collaborative", "alphafuse", "text_only", "two_branch"])
def test_cold_items_are_ranked_by_their_titles(shop: Path, encoder: str) -> None:
    """After one epoch the plain student knows nothing of a cold item; its title says something."""
    data = SequenceDataset.load(shop / "d")
    cold = data.cold_items.nonzero()[0]
    assert len(cold) > 3
    out = shop / encoder
    call(
        "distill", "--strategy", "none", "--dataset", shop / "d", "--knowledge", shop / "k", "--out", out,
        f"item_encoder.name={encoder}", *TINY,
    )  # fmt: skip
    said = call("evaluate", out, "--slice", "cold")
    rows = int(data.cold_items[data.targets(data.rows("test"))].sum())
    assert f"slice cold, test, {rows:,} rows" in " ".join(said.split())
    titles = data.catalogue.titles
    answer = call("recommend", out, "--history", titles[0], titles[1], "--only-cold", "-k", 3, "--json")
    found = {json.loads(line)["item_id"] for line in answer.splitlines()}
    assert found <= {data.catalogue.raw_ids[item] for item in cold}
    assert len(found) == 3


def test_compare_on_a_slice_puts_the_baselines_beside(shop: Path) -> None:
    said = call("compare", shop / "plain", "--slice", "cold")
    assert "slice cold" in said
    assert "popularity" in said


def test_only_cold_without_cold_items_is_refused(shop: Path, capsys, monkeypatch, tmp_path: Path) -> None:
    from recdistill.export import Recommender

    loaded = Recommender.load(shop / "plain")
    assert len(loaded.cold)
    type(loaded)(loaded.model, loaded.catalogue, loaded.spec, loaded.length, loaded.dataset_fingerprint).save(
        tmp_path / "warm"
    )
    title = pl.read_parquet(shop / "d" / "items.parquet")["title"][0]
    words = ("recommend", tmp_path / "warm", "--history", title, "--only-cold")
    assert "saw every item" in fails(capsys, monkeypatch, *words)


def test_two_students_teach_a_third(shop: Path, capsys, monkeypatch) -> None:
    common = ["--dataset", shop / "d", *TINY]
    call(
        "distill", "--strategy", "none", "--knowledge", shop / "k", "--out", shop / "text",
        "item_encoder.name=text_only", *common,
    )  # fmt: skip
    both = ["teach", "student", shop / "plain", shop / "text", "--dataset", shop / "d"]
    said = call(*both, "--weights", "1,2", "--out", shop / "both")
    assert "students" in said
    call(
        "distill", "--strategy", "soft_labels", "--knowledge", shop / "both", "--out", shop / "collapsed",
        "soft_labels.teacher=dot", *common,
    )  # fmt: skip
    assert "NDCG" in call("compare", shop / "plain", shop / "collapsed", shop / "both")
    assert "--weights 1,0.5" in fails(capsys, monkeypatch, *both, "--weights", "1;2", "--out", shop / "z")
    assert "one weight" in fails(capsys, monkeypatch, *both, "--weights", "1", "--out", shop / "z")
