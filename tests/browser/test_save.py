"""Every figure is saved as PNG, SVG and CSV, every table as CSV, under names that say whose."""

from __future__ import annotations

import csv
import re
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from browser.actions import all_drawn
from browser.conftest import Open, result

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def _saved(page: Page, button: Locator, folder: Path) -> Path:
    with page.expect_download() as waiting:
        button.click()
    download = waiting.value
    path = folder / download.suggested_filename
    download.save_as(path)
    return path


def _rows(path: Path) -> list[list[str]]:
    return list(csv.reader(StringIO(path.read_text(encoding="utf-8"))))


def test_every_figure_is_saved_in_three_formats(opened: Open, tmp_path: Path) -> None:
    page = opened("stream", title="A model / of mine")
    page.locator("#stream-maps > summary").click()
    page.locator("#heads-depth > summary").click()
    all_drawn(page)
    figures = page.locator("figure:visible")
    names = set()
    for place, figure in enumerate(figures.all()):
        menu = figure.locator(".save")
        # Pictures of the map, a profile and the graph; the others are made alike.
        formats = ("PNG", "SVG", "CSV") if place in (0, 1, 5) else ("CSV",)
        for wanted in formats:
            menu.locator("summary").click()
            path = _saved(page, menu.get_by_role("button", name=wanted, exact=True), tmp_path)
            assert re.fullmatch(rf"A-model-of-mine-[a-z0-9._-]+\.{wanted.lower()}", path.name)
            content = path.read_bytes()
            if wanted == "PNG":
                assert content.startswith(b"\x89PNG")
                assert len(content) > 5000
            elif wanted == "SVG":
                assert content.startswith(b"<svg")
                assert b"<path" in content
            else:
                names.add(path.name)
                heading, *rows = _rows(path)
                assert rows
                assert {len(row) for row in rows} == {len(heading)}
    assert len(names) == figures.count()


def test_the_csv_of_a_figure_holds_its_values(opened: Open, tmp_path: Path) -> None:
    page = opened("small")
    all_drawn(page)
    group = result("small").heads[0]
    page.evaluate("location.hash = 'heads/0'")
    figure = page.locator("figure:has(#head-matrix)")
    figure.locator(".save summary").click()
    path = _saved(page, figure.get_by_role("button", name="CSV", exact=True), tmp_path)
    heading, *rows = _rows(path)
    assert heading == ["head", "other head", "overlap over chance"]
    assert group.pairwise is not None
    for head, other, value in rows:
        assert abs(float(value) - group.pairwise[int(head)][int(other)]) < 5e-3 * float(value)
    assert len(rows) == group.count * (group.count - 1)

    figure = page.locator("[data-observable=commutator_ratio]")
    figure.locator(".save summary").click()
    heading, *rows = _rows(
        _saved(page, figure.get_by_role("button", name="CSV", exact=True), tmp_path)
    )
    assert heading == ["series", "layer", "C", "object"]
    values = {row[3]: float(row[2]) for row in rows if row[0] == "each pair"}
    for pair in result("small").pairs:
        if pair.kind == "qk":
            assert abs(values[f"pair/{pair.name}"] - (pair.commutator_ratio or 0)) < 1e-3


def test_tables_are_saved_as_filtered_with_numbers_in_full(opened: Open, tmp_path: Path) -> None:
    page = opened("stream")
    search = page.locator("[data-table=pairs] input[type=search]")
    search.fill("mlp.down q")
    path = _saved(page, page.locator("[data-table=pairs]").get_by_text("Save CSV"), tmp_path)
    assert path.name == "stream-pairs.csv"
    heading, *rows = _rows(path)
    known = {pair.name: pair for pair in result("stream").pairs}
    assert rows
    assert all("mlp.down" in row[0] for row in rows)
    for row in rows:
        cells = dict(zip(heading, row, strict=True))
        pair = known[cells["Pair"]]
        assert float(cells["C"]) == pair.commutator_ratio
        assert cells["C, label"] == "functional"
        assert cells["C, chance or more"].startswith("1 [")
    for name in ("heads", "links"):
        path = _saved(page, page.locator(f"[data-table={name}]").get_by_text("Save CSV"), tmp_path)
        expected = {"heads": result("stream").heads, "links": result("stream").edges}[name]
        assert len(_rows(path)) == 1 + len(expected)


def test_a_name_that_a_spreadsheet_would_run_is_saved_as_text(opened: Open, tmp_path: Path) -> None:
    scan = result("perceptron")
    first = scan.pairs[0].model_copy(update={"name": '=HYPERLINK(1),"x"'})
    page = opened(scan.model_copy(update={"pairs": [first, *scan.pairs[1:]]}))
    path = _saved(page, page.locator("[data-table=pairs]").get_by_text("Save CSV"), tmp_path)
    assert _rows(path)[1][0] == '\'=HYPERLINK(1),"x"'
