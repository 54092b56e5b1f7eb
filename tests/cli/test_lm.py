"""``recdistill lm train`` as a user calls it."""

import json
from pathlib import Path

import pytest

from command import call
from recdistill.errors import ConfigError, RecdistillError, RunError
from shop import ring_dataset

SMALL = [
    "--hidden-size",
    16,
    "--layers",
    1,
    "--heads",
    2,
    "--vocabulary",
    300,
    "--context",
    32,
    "--batch-tokens",
    128,
]


def train(*words: object) -> str:
    return call("lm", "train", *words)


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    ring_dataset().save(tmp_path / "d")
    return tmp_path / "d"


def test_train_writes_a_model_and_says_what_it_is(ring: Path) -> None:
    out = ring.parent / "lm"
    said = train("--dataset", ring, "--out", out, "--steps", 8, "--seed", 3, *SMALL)
    names = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "manifest.json",
    } <= names
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 3
    assert f"{manifest['parameters']:,} parameters" in said
    assert "8 steps" in said
    assert said.count("kept") == 1
    assert "trained on the titles and training histories of this dataset alone" in said
    with pytest.raises(RunError, match="--overwrite"):
        train("--dataset", ring, "--out", out, *SMALL)
    train("--dataset", ring, "--out", out, "--steps", 2, "--overwrite", *SMALL)
    assert json.loads((out / "manifest.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("words", "error", "part"),
    [
        (["--heads", 3], ConfigError, "cannot be divided among 3 heads"),
        (["--precision", "fp8"], ConfigError, "Allowed: bf16, float32"),
        (["--epochs", 0], ConfigError, "epochs is 0"),
        (["--domain", "filmz"], ConfigError, "Did you mean 'films'"),
    ],
)
def test_mistakes_end_in_one_message(
    ring: Path, words: list[object], error: type[RecdistillError], part: str
) -> None:
    with pytest.raises(error, match=part):
        train("--dataset", ring, "--out", ring.parent / "lm", *words)
    assert not (ring.parent / "lm").exists()
    assert not (ring.parent / "lm.training").exists()
