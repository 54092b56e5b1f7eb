import json
import subprocess
import sys

import numpy as np
import pytest

from command import call
from recdistill.errors import ConfigError, FingerprintError
from recdistill.knowledge import save_knowledge


@pytest.fixture(scope="module")
def folders(dataset, knowledge, tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    dataset.save(root / "d")
    save_knowledge(knowledge, root / "k")
    return root


def test_show(folders):
    text = call("knowledge", "show", folders / "k", "--dataset", folders / "d")
    assert "30 items" in text
    assert "ranking              int32" in text
    assert "100.00% of 40 rows covered" in text
    assert '"teacher": "oracle"' in text


def test_export(folders, knowledge):
    call(
        "knowledge", "export", folders / "k", "--dataset", folders / "d", "--out", folders / "files", "--k", 3
    )
    assert np.loadtxt(folders / "files" / "myrank_train.txt").shape[1] == 3
    with pytest.raises(ConfigError, match=r"unknown scaling 'rows'. Did you mean 'row'"):
        call(
            "knowledge",
            "export",
            folders / "k",
            "--dataset",
            folders / "d",
            "--out",
            folders / "g",
            "--min-max",
            "rows",
        )


def test_audit(folders):
    options = ("--dataset", folders / "d", "--no-baselines", "--split", "valid", "--out", folders / "audit")
    text = call("knowledge", "audit", folders / "k", *options)
    assert "Not compared with anything" in " ".join(text.split())
    assert json.loads((folders / "audit" / "audit.json").read_text())["split"] == "valid"
    assert (folders / "audit" / "audit.md").read_text().startswith("# Audit: oracle on ring")
    with pytest.raises(ConfigError, match="unknown split 'tests'"):
        call("knowledge", "audit", folders / "k", "--dataset", folders / "d", "--split", "tests")


def test_another_dataset_is_refused(folders, make_ring):
    make_ring(seed=7).save(folders / "other")
    with pytest.raises(FingerprintError):
        call("knowledge", "show", folders / "k", "--dataset", folders / "other")


def test_help_loads_nothing_heavy():
    code = "import sys, recdistill.cli.knowledge; print({'torch', 'polars', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
