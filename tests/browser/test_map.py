"""The map of heads, or of kinds of pairs: each cell opens what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from browser.actions import address, arrived
from browser.conftest import Open, result
from flagscope.report.map_of_heads import head_maps
from flagscope.report.map_of_kinds import kind_maps
from flagscope.report.maps import PageMap


def _cell(shown: PageMap, row: int, column: int) -> Sequence[Any]:
    """Number, words and target of a cell that has a number."""
    cell = shown.cells[row][column]
    assert cell is not None
    return cell


@pytest.mark.parametrize("name", ["small", "grouped", "stream"])
def test_a_cell_opens_its_heads_and_marks_them(opened: Open, name: str) -> None:
    page = opened(name)
    chosen = head_maps(result(name))[0]
    cells = page.locator("#map-grid td[data-r]")
    assert cells.count() == len(chosen.rows) * len(chosen.columns)
    target = _cell(chosen, 1, 2)[2]
    page.locator("#map-grid td[data-r='1'][data-c='2']").click()
    arrived(page, target, "group-title")
    key, marks = target.removeprefix("heads/").split("/")
    layer, space = key.split(".")[-2:]
    words = {"q": "query", "k": "key", "v": "value", "o": "output"}
    assert page.locator("#group-title").inner_text() == f"Layer {layer}, {words[space]} space"
    assert page.locator("#group-marked").inner_text().startswith("Marked: heads ")
    assert all(mark in page.locator("#group-marked").inner_text() for mark in marks.split("-"))
    assert (
        page.locator("#space-tabs input:checked + span")
        .inner_text()
        .startswith(words[space].capitalize())
    )
    # Its own cell, and with shared keys the others that they serve.
    outlined = page.locator("#map-grid td.open").evaluate_all(
        "cells => cells.map(cell => cell.dataset.r)"
    )
    assert "1" in outlined
    assert set(outlined) == {"1"}


def test_the_map_is_on_the_first_screen_before_the_findings(opened: Open) -> None:
    page = opened("demo")
    box = page.locator("#map-grid").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900
    findings = page.locator("#findings").bounding_box()
    assert findings is not None
    assert box["y"] < findings["y"] < 900


def test_arrow_keys_move_through_the_map_and_enter_opens(opened: Open) -> None:
    page = opened("small")
    chosen = head_maps(result("small"))[0]
    page.locator("#map-grid td[tabindex='0']").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press(key)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == f"layer 1, head 1: {_cell(chosen, 1, 1)[1]}"
    assert page.locator("#map-grid td[tabindex='0']").count() == 1
    assert page.locator("#map-readout").inner_text() == label
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    arrived(page, _cell(chosen, 1, 3)[2], "group-title")


def test_the_choice_of_colour_changes_numbers_words_and_key(opened: Open) -> None:
    page = opened("stream")
    maps = [*head_maps(result("stream")), *kind_maps(result("stream"))]
    options = page.locator("#map-choice option").all_inner_texts()
    assert [option.removesuffix(" (gauge)") for option in options] == [one.title for one in maps]
    place = next(i for i, one in enumerate(maps) if one.key.endswith("links-from"))
    page.locator("#map-choice").select_option(str(place))
    counts = [[int(cell[0]) for cell in row if cell] for row in maps[place].cells]
    shown = page.locator("#map-grid tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].slice(1).map(cell => Number(cell.textContent)))"
    )
    assert shown == counts
    assert page.locator("#map-words").inner_text() == maps[place].words
    assert page.locator("#map-label").inner_text() == "functional"
    assert page.locator("#map-key").inner_text().split() == ["0", str(max(map(max, counts)))]


def test_without_heads_a_cell_opens_its_pair(opened: Open) -> None:
    page = opened("resnet")
    chosen = kind_maps(result("resnet"))[0]
    page.locator("#map-grid td[data-r='0'][data-c='3']").click()
    arrived(page, _cell(chosen, 0, 3)[2], "pair-title")
    assert page.locator("#pair-title").inner_text() == address(page).removeprefix("pair/")


def test_the_list_of_the_furthest_opens_them_too(opened: Open) -> None:
    page = opened("small")
    entry = page.locator("#map-list a").first
    target = entry.get_attribute("data-target")
    assert target is not None
    best = max(cell for row in head_maps(result("small"))[0].cells for cell in row if cell)
    assert set(target.split("/")[-1].split("-")) == set(best[2].split("/")[-1].split("-"))
    entry.focus()
    page.keyboard.press("Enter")
    arrived(page, target, "group-title")


def test_eighty_layers_of_sixty_four_heads_stay_compact(opened: Open) -> None:
    from report import synthetic

    wide = synthetic.large(layers=2, heads=64)
    heads = [
        group.model_copy(update={"layer": layer})
        for layer in range(80)
        for group in wide.heads
        if group.layer == 0
    ]
    page = opened(wide.model_copy(update={"pairs": [], "heads": heads, "tests": {}}))
    assert page.locator("#map-grid td[data-r]").count() == 80 * 64
    box = page.locator("#map").bounding_box()
    assert box is not None
    assert box["height"] < 620
    page.locator("#map-grid td[data-r='79'][data-c='63']").click()
    assert address(page).startswith("heads/encoder.layer.79.")
