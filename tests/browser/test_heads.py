"""The page of all heads: a click on a cell opens its heads, and axe finds no fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import flagscope
from report.test_heads_page import GPT2, planted

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    path = folder / "heads.html"
    flagscope.head_overlaps(planted(), config=GPT2).to_html(path)
    return path


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["wide", "phone"])
def page(
    request: pytest.FixtureRequest, browser: Browser, written: Path
) -> Iterator[tuple[Page, list[str]]]:
    scheme, width = request.param
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce",
        accept_downloads=True,
    )  # fmt: skip
    opened, said = context.new_page(), []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(written.as_uri())
    opened.wait_for_selector("html[data-ready][data-figures='4']")
    yield opened, said
    context.close()
    assert said == []


def test_a_click_opens_two_heads_and_the_address_comes_back_to_them(page) -> None:
    opened, _ = page
    plot = opened.locator(".nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    # Of twelve rows and columns, the cell of L0H2 and L2H1.
    opened.mouse.move(box["x"] + box["width"] * 9.5 / 12, box["y"] + box["height"] * 2.5 / 12)
    opened.mouse.down()
    opened.mouse.up()
    opened.wait_for_function("location.hash")
    assert opened.evaluate("location.hash") == "#pair/0/L0H2-L2H1"
    assert opened.inner_text("#pair-title") == "L0H2 and L2H1"
    opened.reload()
    opened.wait_for_selector("#pair-panel:not([hidden])")
    assert opened.inner_text("#pair-title") == "L0H2 and L2H1"


def test_tables_and_maps_are_saved(page) -> None:
    opened, _ = page
    with opened.expect_download() as waited:
        opened.locator("button.save-table").first.click()
    assert waited.value.suggested_filename.endswith("near-copies.csv")
    text = Path(waited.value.path()).read_text(encoding="utf-8").splitlines()
    assert text[0].startswith("Space,Head,Head,Mean cos²")
    assert text[1].startswith("query space,L0H2.q,L2H1.q,")
    opened.locator("figure .save summary").first.click()
    with opened.expect_download() as waited:
        opened.locator("figure .save button", has_text="CSV").first.click()
    rows = Path(waited.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(rows) == 13
    assert rows[0].startswith(",L0H0,L0H1")


def test_axe_finds_no_fault(page) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened, _ = page
    opened.evaluate("location.hash = '#pair/0/L0H2-L2H1'")
    opened.wait_for_selector("#pair-panel:not([hidden])")
    found = axe.run(opened).response
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found["violations"]] == []
    assert len(found["passes"]) > 15
    assert opened.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
