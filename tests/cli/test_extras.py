"""What works, and what is said, where only a part of the packages is installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recdistill.errors import MissingExtraError
from recdistill.extras import EXTRA_OF, extra, missing_extra

ROOT = Path(__file__).parents[2]
#: Distribution → module, where the two differ.
MODULE = {"scikit-learn": "sklearn", "pyyaml": "yaml", "sentence-transformers": "sentence_transformers"}
TRAIN = ["torch", "accelerate", "polars", "scipy", "sklearn", "threadpoolctl", "yaml"]


def run_without(modules: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which these modules do not exist."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({modules!r})); sys.argv = ['recdistill', *{list(words)!r}];"
        "from recdistill.cli.main import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def packages(requirements: list[str]) -> set[str]:
    """Return the modules that requirements name, themselves left out."""
    names = {line.split(">")[0].split("[")[0].lower() for line in requirements} - {"recdistill"}
    return {MODULE.get(name, name) for name in names}


def test_the_table_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for module, name in EXTRA_OF.items():
        assert module in packages(extras[name])
    named = set().union(*(packages(lines) for name, lines in extras.items() if name != "dev"))
    assert named == set(EXTRA_OF)
    assert all(
        "recdistill[train]" in lines
        for name, lines in extras.items()
        if name not in {"train", "serve", "dev"}
    )
    assert not packages(project["dependencies"] + extras["serve"]) & set(TRAIN)


def test_help_and_the_server_need_no_training_part(tmp_path: Path) -> None:
    for words in (["--help"], ["serve", "--help"], ["distill", "--help"]):
        assert run_without(TRAIN, *words).returncode == 0
    answer = run_without(TRAIN, "serve", str(tmp_path))
    assert "no recommender-export folder" in answer.stderr


def test_a_command_names_the_extra_that_it_lacks(tmp_path: Path) -> None:
    answer = run_without(TRAIN, "distill", "--dataset", str(tmp_path), "--out", str(tmp_path / "r"))
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: ")
    assert "pip install 'recdistill[train]'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_import_in_the_block_names_its_extra() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"no_such_package is not installed.*recdistill\[llm\]"),
        extra("llm"),
    ):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401


def test_other_missing_modules_are_no_matter_of_extras() -> None:
    assert missing_extra(ModuleNotFoundError("x", name="recdistill.nothing")) is None
    assert "[report]" in str(missing_extra(ModuleNotFoundError("x", name="matplotlib.figure")))
