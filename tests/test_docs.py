"""The pages that are made from the code are up to date, and every strategy and student has its row."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("docs_make", ROOT / "docs" / "make.py")
assert _spec is not None
assert _spec.loader is not None
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.mark.parametrize("name", sorted(make.PAGES))
def test_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "100")
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == make.PAGES[name](), "run: make docs"


def test_every_strategy_and_encoder_has_a_row() -> None:
    from recdistill.item_encoders import ITEM_ENCODERS
    from recdistill.recipes import RECIPES
    from recdistill.strategies import STRATEGIES

    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    for name in [*STRATEGIES, *ITEM_ENCODERS, *RECIPES]:
        assert f"`{name}`" in page, f"docs/strategies.md has no row for {name}"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith(("http", "mailto")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
