"""Pages opened in Debian's browser or another Chromium on the path; skipped where none is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flagscope.records import ScanResult
from flagscope.records.series import SeriesRecord
from flagscope.report import render_page
from flagscope.report.series import render_series
from report import synthetic

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
DRAWN = 20_000  # milliseconds in which a loaded machine has drawn every figure


def _small() -> ScanResult:
    return synthetic.transformer(layers=3, heads=4, rank=8, d=32, planted=False)


def _grouped() -> ScanResult:
    return synthetic.transformer(
        layers=2, heads=8, key_heads=2, rank=8, d=64, rope=True, planted=False
    )


def _stream() -> ScanResult:
    return synthetic.stream(layers=4, heads=6, key_heads=3, rank=8, d=64)


def _demo() -> ScanResult:
    from flagscope import scan
    from flagscope.demo import final

    return scan(final()).result


_RESULTS: dict[str, Callable[[], ScanResult]] = {
    "small": _small,
    "grouped": _grouped,
    "stream": _stream,
    "demo": _demo,
    "resnet": synthetic.resnet,
    "perceptron": synthetic.perceptron,
    "hostile": synthetic.hostile,
    "empty": synthetic.empty,
}


@cache
def result(name: str) -> ScanResult:
    """A scan by the name of its page."""
    return _RESULTS[name]()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on the path: {', '.join(NAMES)}")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if root else []
        )
        yield started
        started.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pages are written."""
    return tmp_path_factory.mktemp("pages")


def _rendered(what: str | ScanResult | SeriesRecord, title: str | None) -> str:
    if isinstance(what, SeriesRecord):
        return render_series(what, title=title)
    return render_page(result(what) if isinstance(what, str) else what, title=title)


Open = Callable[..., "Page"]


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Open]:
    """Opens a page by name or by result; in the end, none may have complained or asked the network.

    `opened("demo", "#pair/…", width=390, scheme="dark")`.
    """
    contexts, said = [], []

    def call(
        what: str | ScanResult | SeriesRecord, hash: str = "", *, width: int = 1280,
        height: int = 900, scheme: str = "light", title: str | None = None,
    ) -> Page:  # fmt: skip
        name = what if isinstance(what, str) else "given"
        path = folder / f"{name}.html"
        if not isinstance(what, str) or title is not None or not path.exists():
            path = folder / f"{name}{len(contexts)}.html" if title else path
            path.write_text(_rendered(what, title), encoding="utf-8")
        arguments: dict[str, Any] = {
            "viewport": {"width": width, "height": height}, "color_scheme": scheme,
            "reduced_motion": "reduce",  # scrolling takes no time then
        }  # fmt: skip
        context = browser.new_context(accept_downloads=True, **arguments)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("file:", "data:", "blob:"))
                else said.append(f"request: {request.url}")
            ),
        )
        page.goto(path.as_uri() + hash)
        ready(page)
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []


def ready(page: Page) -> None:
    """Wait until the page's scripts are set up."""
    page.wait_for_function("document.documentElement.dataset.ready === 'true'", timeout=DRAWN)
    assert "error" not in page.evaluate("({...document.documentElement.dataset})")
