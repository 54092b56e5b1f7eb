"""`recdistill export` and `report` on real runs at toy size, through the command line's own functions."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from command import call
from recdistill.errors import RunError
from recdistill.experiments.run_report import RunParts, audit_tables, learning_curves
from recdistill.runs import read_json
from shop import ring_dataset

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a teacher with text, a student with it and one without."""
    folder = tmp_path_factory.mktemp("shop")
    ring_dataset().save(folder / "d")
    call(
        "teach",
        "graph",
        "--dataset",
        folder / "d",
        "--out",
        folder / "k",
        "--no-tune",
        "--rank",
        8,
        "--top-k",
        20,
    )
    small = ["student.embedding_size=16", "student.length=8", "train.epochs=2"]
    base = ["distill", "--dataset", folder / "d", *small]
    call(*base, "--strategy", "none", "--seeds", 2, "--out", folder / "plain")
    call(*base, "--knowledge", folder / "k", "--strategy", "dllm2rec", "--out", folder / "distilled")
    return folder


def test_the_page_holds_everything_and_needs_nothing(shop: Path) -> None:
    out = shop / "report.html"
    call("report", shop / "plain", shop / "distilled", shop / "k", "--out", out)
    page = out.read_text()
    for heading in (
        "Comparison with",
        "NDCG@20 by history length",
        "Latency",
        "Training",
        "Teacher: Quality gates",
    ):
        assert f"<h2>{heading}" in page
    for title in ("Learning curves", "NDCG@20 on each slice", "Accuracy against latency"):
        assert f'alt="{title}"' in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4
    assert all(base64.b64decode(picture)[:4] == b"\x89PNG" for picture in pictures)
    assert not re.search(r"<script|<link|src=\"(?!data:)|href=|url\(", page)
    ranks = read_json(shop / "distilled" / "evaluation" / "test-filtered" / "metrics.json")
    assert f"{ranks['ndcg@20']:.4f}" in page


def test_on_a_phone_tables_scroll_in_their_own_box(shop: Path) -> None:
    """390 pixels wide: the page itself never scrolls sideways, letters stay large enough, pictures fit."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    sync_api = pytest.importorskip("playwright.sync_api")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    out = shop / "phone.html"
    call("report", shop / "plain", shop / "distilled", shop / "k", "--no-latency", "--out", out)
    long = "<li>a/very/long/folder/" + "name" * 40 + "</li></ul>"
    out.write_text(out.read_text().replace("</ul>", long))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True, device_scale_factor=2)
        page.goto(out.as_uri())
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        boxes = page.evaluate(
            "[...document.querySelectorAll('.wide')].map(b => [b.clientWidth, b.scrollWidth, b.tabIndex])"
        )
        box = page.locator(".wide").first
        box.evaluate("b => { b.scrollLeft = 100; }")
        moved = box.evaluate("b => b.scrollLeft"), page.evaluate("window.scrollX")
        sizes = page.evaluate(
            "[...document.querySelectorAll('td, p, li')].map(e => parseFloat(getComputedStyle(e).fontSize))"
        )
        pictures = page.evaluate("[...document.images].map(i => i.getBoundingClientRect().right)")
        browser.close()
    assert max(wide) <= 390
    assert all(shown <= 390 and place == 0 for shown, _, place in boxes)
    assert any(whole > shown for shown, whole, _ in boxes)  # there is something to scroll
    assert moved == (100, 0)
    assert min(sizes) >= 12
    assert pictures
    assert max(pictures) <= 390


def test_a_page_does_not_replace_what_is_none(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    words = ["report", shop / "plain", "--no-baselines", "--no-latency", "--out", tmp_path / "mine.txt"]
    with pytest.raises(RunError, match="no HTML page"):
        call(*words)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_curves_are_the_recorded_epochs(shop: Path) -> None:
    curves = learning_curves(RunParts("plain", shop / "plain"))
    assert [curve.epochs for curve in curves] == [[1, 2], [1, 2]]
    assert all(value is not None and 0 <= value <= 1 for curve in curves for value in curve.valid)
    path = shop / "plain" / "seed-0" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + "{half a li")
    with pytest.raises(RunError, match="damaged"):
        learning_curves(RunParts("plain", shop / "plain"))
    path.write_text(whole)


def test_tables_of_an_audit() -> None:
    text = (
        "# A\n\n## First\n\n| a | b\\|c |\n| --- | --- |\n| 1 | 2 |\n\nwords\n\n## Empty\n\n| a |\n| --- |\n"
    )
    (table,) = audit_tables(text)
    assert (table.title, table.columns, table.lines) == ("Teacher: First", ["a", "b|c"], [["1", "2"]])


def test_export_extend_and_recommend_from_the_command_line(shop: Path, tmp_path: Path) -> None:
    """A run with text takes new items by title; one without says why not."""
    said = call("export", shop / "distilled", "--out", tmp_path / "rec")
    assert "agree to" in said
    assert read_json(tmp_path / "rec" / "config.json")["strategy"] == "dllm2rec"
    assert "| strategy | dllm2rec |" in (tmp_path / "rec" / "README.md").read_text()
    card = (tmp_path / "rec" / "README.md").read_text()
    assert "## Measured" in card or not (shop / "distilled" / "evaluation").exists()
    pl.DataFrame({"item_id": ["new"], "title": ["Saga 2 part 5"]}).write_csv(tmp_path / "new.csv")
    call("extend", tmp_path / "rec", "--items", tmp_path / "new.csv", "--out", tmp_path / "rec2")
    assert read_json(tmp_path / "rec2" / "config.json")["strategy"] == "dllm2rec"
    pl.DataFrame({"history": [["new", "i00"], ["i03"]]}).write_parquet(tmp_path / "h.parquet")
    call(
        "recommend",
        tmp_path / "rec2",
        "--input",
        tmp_path / "h.parquet",
        "--output",
        tmp_path / "r.parquet",
        "-k",
        3,
    )
    assert [len(line) for line in pl.read_parquet(tmp_path / "r.parquet")["items"]] == [3, 3]
    assert '"item_id"' in call("recommend", tmp_path / "rec2", "--history", "new", "--json")
    call("export", shop / "plain", "--out", tmp_path / "ids", "--table", "int8")
    assert read_json(tmp_path / "ids" / "config.json")["strategy"] is None
    with pytest.raises(RunError, match="do not come from text"):
        call("extend", tmp_path / "ids", "--items", tmp_path / "new.csv", "--out", tmp_path / "out")
    with pytest.raises(RunError, match="an export already"):
        call("export", tmp_path / "ids", "--out", tmp_path / "again")
