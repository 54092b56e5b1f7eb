"""Stored teacher lists: what the file says is what the knowledge says."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from recdistill.cli.main import app
from recdistill.data import SequenceDataset, ShopConfig, simulated_dataset
from recdistill.knowledge import load_knowledge
from recdistill.runs import read_json
from recdistill.serve.examples import Examples

run = CliRunner()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("taught")
    simulated_dataset(ShopConfig(users=120, items=80), "leave-one-out").save(root / "d")
    done = run.invoke(app, ["teach", "graph", "--dataset", str(root / "d"), "--out", str(root / "k")])
    assert done.exit_code == 0, done.output
    return root


def test_the_file_holds_the_teachers_lists(taught: Path) -> None:
    out = taught / "examples.json"
    command = ["knowledge", "examples", str(taught / "k"), "--dataset", str(taught / "d"), "--out", str(out)]
    assert run.invoke(app, [*command, "--rows", "15", "-k", "7"]).exit_code == 0
    dataset = SequenceDataset.load(taught / "d")
    knowledge = load_knowledge(taught / "k", dataset)
    stored = Examples.load(out, [dataset.fingerprint])
    assert 1 <= len(stored) <= 15
    assert read_json(out)["dataset_fingerprint"] == dataset.fingerprint
    lists = {}
    for place, ranking in zip(dataset.positions_of(knowledge.row_ids), knowledge.ranking, strict=True):
        history = [item for item in dataset.histories(place[None], 10)[0] if item >= 0]
        target = int(dataset.targets(place[None])[0])
        lists[tuple(dataset.catalogue.raw_ids[i] for i in history), dataset.catalogue.raw_ids[target]] = [
            dataset.catalogue.raw_ids[i] for i in ranking[:7] if i >= 0
        ]
    for row in stored.rows:
        assert lists[tuple(row["history"]), row["target"]] == row["teacher"]
