"""The command line, called as a user calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recdistill.cli.main import app, main


def call(*words: object) -> str:
    """Return what ``recdistill <words>`` says. An error is raised as it is."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """Return what ``recdistill <words>`` says on standard error as it stops with status 1, as in a shell."""
    monkeypatch.setattr(sys, "argv", ["recdistill", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    return capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file under a folder, hidden ones too, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
