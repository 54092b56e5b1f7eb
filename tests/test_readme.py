"""The README's Python example runs as it is written."""

import re
from pathlib import Path

import pytest

from recdistill.data import ShopConfig, simulated_dataset

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    simulated_dataset(ShopConfig(users=150, items=200), "leave-one-out").save("d")
    code = found.group(1).replace("epochs=30", "epochs=1")
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "ndcg@20" in printed
    assert "shape: (10, 5)" in printed
