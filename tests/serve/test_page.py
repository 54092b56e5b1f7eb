"""The page in a real browser: search, click, lists that change; by keyboard; on a phone; titles that look like HTML."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from serve.conftest import Running

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(server: Running) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": 1100, "height": 800})
        browser.close()


@pytest.fixture
def errors(page: Any, server: Running) -> Iterator[list[str]]:
    found: list[str] = []
    page.on(
        "console",
        lambda message: found.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: found.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#status:not(:empty)")
    yield found
    assert found == []


def first_list(page: Any) -> list[str]:
    return list(page.locator(".list").first.locator("li .title").all_inner_texts())


def test_search_click_and_the_lists_change(page: Any, errors: list[str]) -> None:
    page.get_by_label("Search titles").fill("story")
    page.wait_for_selector("#hits li")
    assert page.locator("#hits li").count() == 3
    page.locator("#hits li").first.click()
    page.wait_for_selector(".list li")
    assert page.locator(".list h3").all_inner_texts() == ["distilled", "plain"]
    notes = page.locator(".list > p.quiet").all_inner_texts()
    assert notes == ["toy + dllm2rec", "toy"]
    before = first_list(page)
    assert len(before) == 10
    page.locator(".list").nth(1).get_by_role("button", name="add").first.click()
    page.wait_for_function(
        "old => document.querySelector('.list li .title').textContent !== old", arg=before[0]
    )
    assert first_list(page) != before
    assert page.locator("#history li").count() == 2
    assert "share" in page.locator("#differs").inner_text()
    page.locator(".list button:has-text('why')").first.click()
    page.wait_for_selector("#why .bar")
    assert page.locator("#why .bar").count() == 2


def test_by_keyboard_alone_and_titles_are_text(page: Any, errors: list[str]) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the lists
    page.get_by_label("Search titles").focus()
    page.keyboard.type("heat")
    page.wait_for_selector("#hits li >> nth=2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#hits [aria-selected=true]").inner_text().startswith("HEAT <b>&")
    page.keyboard.press("Enter")
    page.wait_for_selector(".list li")
    assert page.locator("#history li").inner_text().startswith("HEAT <b>&")
    assert page.locator("#history b").count() == 0
    page.keyboard.press("Backspace")
    page.wait_for_function("document.querySelectorAll('.list').length === 0")


def test_on_a_phone_nothing_is_wider_than_the_screen(page: Any, errors: list[str]) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.get_by_label("Search titles").fill("toy")
    page.locator("#hits li").first.click()
    page.wait_for_selector(".list li")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1100, "height": 800})


def test_docs_are_drawn(page: Any, errors: list[str], server: Running) -> None:
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("h2")
    assert "POST /recommend" in page.locator("h2").all_inner_texts()
