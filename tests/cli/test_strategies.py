"""``recdistill strategies`` tells what the code has, not what a page once said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recdistill.cli import strategies as verb
from recdistill.errors import ConfigError
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.knowledge import Knowledge, save_knowledge
from recdistill.recipes import RECIPES
from recdistill.strategies import STRATEGIES


def lines(text: str) -> dict[str, str]:
    """First cell of each table row to the whole row; a row that goes on below has an empty first cell."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("│"):
            name = line.split("│")[1].strip() or name
            found[name] = found.get(name, "") + line
    return found


def test_everything_is_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    verb.strategies()
    told = lines(capsys.readouterr().out)
    assert {*STRATEGIES, *ITEM_ENCODERS, *RECIPES} <= told.keys()
    assert "item_embeddings" in told["hint"]
    assert "target_distance" in told["importance"]
    assert "https://arxiv.org/abs/1809.07428" in told["rd"]


def test_a_folder_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    knowledge = Knowledge(
        np.arange(3),
        5,
        ranking=np.array([[0, 1], [1, 2], [3, 4]]),
        manifest={"teacher": "made up", "dataset_fingerprint": "x"},
    )
    save_knowledge(knowledge, tmp_path / "k")
    verb.strategies(knowledge=tmp_path / "k")
    told = lines(capsys.readouterr().out)
    assert told["rd"].rstrip("│ ").endswith("yes")
    assert "no item_embeddings" in told["freqd"]
    assert "no target_distance" in told["importance"]


@pytest.mark.parametrize("name", [*STRATEGIES, *ITEM_ENCODERS])
def test_each_has_a_page(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb.strategies(name)
    out = capsys.readouterr().out
    assert "Options and their defaults" in out
    assert len(out.splitlines()) > 8


def test_a_wrong_name_is_answered_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match="importance"):
        verb.strategies("importence")
