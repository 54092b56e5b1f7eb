"""The whole way from the command line, on a shop of toy size."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from command import call, fails

TINY = ["train.epochs=2", "train.batch_size=64", "student.embedding_size=16"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset, knowledge, a plain run of two seeds and a distilled one."""
    root = tmp_path_factory.mktemp("shop")
    call("data", "simulated", "--users", 150, "--items", 80, "--out", root / "d")
    call("teach", "graph", "--dataset", root / "d", "--out", root / "k")
    common = ["--dataset", root / "d", "--student", "sasrec", *TINY]
    call("distill", "--strategy", "none", "--out", root / "plain", "--seeds", 2, *common)
    call("distill", "--strategy", "dllm2rec", "--knowledge", root / "k", "--out", root / "taught", *common)
    return root


def test_a_run_folder_holds_what_it_should(shop: Path) -> None:
    run = shop / "plain" / "seed-1"
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "best", "environment.json"} <= {
        p.name for p in run.iterdir()
    }
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_evaluate_names_the_protocol(shop: Path) -> None:
    output = call("evaluate", shop / "plain")
    assert "test" in output
    assert "kept" in output
    metrics = json.loads(
        (shop / "plain" / "seed-0" / "evaluation" / "test-kept" / "metrics.json").read_text()
    )
    assert "ndcg@20" in json.dumps(metrics)


def test_compare_puts_baselines_teacher_and_oracle_in_the_table(shop: Path) -> None:
    output = call("compare", shop / "plain", shop / "taught", shop / "k", "--out", shop / "report")
    for name in ("popularity", "transition", "graph + text", "teacher", "oracle"):
        assert name in output
    written = {path.suffix for path in (shop / "report").iterdir()}
    assert {".md", ".json", ".png"} <= written


def test_recommend_by_title(shop: Path) -> None:
    items = pl.read_parquet(shop / "d" / "items.parquet")
    first, second = items["item_id"][3], items["title"][5]
    output = call("recommend", shop / "taught", "--history", first, second, "-k", 4, "--json")
    answers = [json.loads(line) for line in output.splitlines()]
    assert [answer["rank"] for answer in answers] == [1, 2, 3, 4]
    assert set(answers[0]) == {"rank", "item_id", "title", "score"}
    assert "rank" in call("recommend", shop / "plain", "--history", first, "-k", 3)


def test_stats_audit_and_doctor(shop: Path) -> None:
    assert "80" in call("data", "stats", shop / "d")
    assert (
        "overlap"
        in call("knowledge", "audit", shop / "k", "--dataset", shop / "d", "--run", shop / "taught").lower()
    )
    assert "torch" in call("doctor")


def test_an_interrupted_command_goes_on_and_a_finished_one_is_kept(shop: Path) -> None:
    before = (shop / "taught" / "metrics.jsonl").read_text()
    call(
        "distill",
        "--strategy",
        "dllm2rec",
        "--knowledge",
        shop / "k",
        "--out",
        shop / "taught",
        "--dataset",
        shop / "d",
        "--student",
        "sasrec",
        *TINY,
    )
    assert (shop / "taught" / "metrics.jsonl").read_text() == before


def test_knowledge_survives_the_authors_three_files(shop: Path) -> None:
    call("knowledge", "export", shop / "k", "--dataset", shop / "d", "--out", shop / "official")
    names = {path.name for path in (shop / "official").iterdir()}
    assert {"all_embeddings.pt", "myrank_train.txt", "confidence_train.txt"} <= names
    call("teach", "precomputed", "--files", shop / "official", "--dataset", shop / "d", "--out", shop / "k2")
    call(
        "distill",
        "--strategy",
        "rd",
        "--knowledge",
        shop / "k2",
        "--dataset",
        shop / "d",
        "--out",
        shop / "rd",
        *TINY,
    )


def test_dry_run_shows_the_config_and_writes_nothing(shop: Path) -> None:
    output = call("distill", "--dataset", shop / "d", "--variant", "paper", "--dry-run", "train.epochs=9")
    assert "epochs: 9" in output
    assert "tied: false" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill", "--out", "{}/x", "--dataset", "{}/nowhere"], "no dataset folder"),
        (["distill", "--out", "{}/x", "--dataset", "{}/d", "--strategy", "dllm2rec"], "knowledge"),
        (["distill", "--out", "{}/x", "--dataset", "{}/d", "--student", "sasrek"], "Did you mean 'sasrec'"),
        (["distill", "--out", "{}/x", "--dataset", "{}/d", "sasrec.dropot=0.1"], "Did you mean 'dropout'"),
        (["distill", "--out", "{}/taught", "--dataset", "{}/d"], "another config"),
        (["distill", "--dataset", "{}/d"], "--out is missing"),
        (["evaluate", "{}/d"], "make a run: recdistill distill"),
        (["evaluate", "{}/d", "--dataset", "{}/d"], "no run folder"),
        (["evaluate", "{}/plain", "--split", "tset"], "Did you mean 'test'"),
        (["compare", "{}/k"], "--dataset"),
        (["recommend", "{}/taught", "--history", "No such film"], "No such film"),
        (["recommend", "{}/taught", "--history", "1", "-k", "0"], "k is 0"),
    ],
)
def test_wrong_input_gets_a_message_that_helps(
    shop: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    assert message in fails(capsys, monkeypatch, *(word.format(shop) for word in words))
    assert not (shop / "x").exists()


def test_a_dataset_that_changed_is_refused(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call("data", "simulated", "--users", 150, "--items", 80, "--seed", 1, "--out", shop / "d2")
    said = fails(
        capsys,
        monkeypatch,
        "distill",
        "--dataset",
        shop / "d2",
        "--knowledge",
        shop / "k",
        "--strategy",
        "rd",
        "--out",
        shop / "y",
    )
    assert "was made from dataset" in said


def test_a_kept_evaluation_is_of_its_own_dataset(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call("evaluate", shop / "plain")
    call("data", "simulated", "--users", 60, "--items", 80, "--seed", 5, "--out", tmp_path / "d")
    said = fails(capsys, monkeypatch, "evaluate", shop / "plain", "--dataset", tmp_path / "d")
    assert "was made from dataset" in said
    assert "row id" not in said


def test_help_loads_neither_torch_nor_polars() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from recdistill.cli.main import app;"
        "assert CliRunner().invoke(app, ['distill', '--help']).exit_code == 0;"
        "heavy = {'torch', 'polars', 'numpy', 'scipy', 'sklearn', 'accelerate'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
