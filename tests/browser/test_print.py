"""A page prints as it is seen: with its figures, in the colours of paper."""

from __future__ import annotations

import re
import zlib

import pytest

from browser.actions import all_drawn
from browser.conftest import Open
from flagscope.records.series import SeriesRecord
from report import made_series


def _content(pdf: bytes) -> bytes:
    """The drawing commands of a PDF."""
    parts = []
    for found in re.finditer(rb"stream\r?\n", pdf):
        try:
            parts.append(zlib.decompressobj().decompress(pdf[found.end() :]))
        except zlib.error:
            continue
    return b"\n".join(parts)


def _curves(content: bytes) -> int:
    """Number of straight and curved pieces of paths."""
    return len(re.findall(rb"[\d.]+ [\d.]+ [lc]\b", content))


@pytest.mark.parametrize(
    ("what", "scheme"), [("small", "light"), ("small", "dark"), (made_series.faulty(), "dark")],
    ids=["light", "dark", "series"],
)  # fmt: skip
def test_a_printed_page_holds_its_figures_in_light_colours(
    opened: Open, what: str | SeriesRecord, scheme: str
) -> None:
    page = opened(what, scheme=scheme)
    page.wait_for_function("() => window.Plotly !== undefined")
    full = page.pdf()  # nothing has been scrolled to
    all_drawn(page)
    again = page.pdf()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.locator(".main-svg[viewBox]").count() == 0
    page.evaluate("for (const plot of document.querySelectorAll('.plot')) plot.remove()")
    blank = _curves(_content(page.pdf()))
    # The figures of a page have hundreds of markers and lines.
    assert _curves(_content(again)) > blank + 500
    assert _curves(_content(full)) > blank + 500
    # The blue of series on paper, #0b61a4, and not that of the dark theme, #6bb6f0.
    content = _content(again)
    assert re.search(rb"\.0431\d* \.3804\d* \.6431\d* (?:rg|RG)", content)
    assert not re.search(rb"\.4196\d* \.7137\d* \.9412\d* (?:rg|RG)", content)
