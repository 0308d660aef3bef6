"""The page of a series: a slider over the steps, a map of one step, curves of one pair."""

from __future__ import annotations

import csv
import itertools
import tempfile
from functools import cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import flagscope
from browser.actions import address, all_drawn, arrived, click_point
from browser.conftest import Open, ready
from flagscope.demo import checkpoints
from flagscope.records.series import SeriesCurve, SeriesRecord
from report import made_series, tracked_series
from series.gpts import dead_neurons, equal_keys, gpts, saved_gpts

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@cache
def faulty() -> SeriesRecord:
    return made_series.faulty()


@cache
def bundled() -> SeriesRecord:
    return flagscope.track(Path(checkpoints()[0]).parent, kinds="mlp").result


@cache
def with_heads() -> SeriesRecord:
    """Two heads of layer 1 become near-copies, and neurons of layer 0 die, at step 30."""
    with tempfile.TemporaryDirectory() as folder:
        source = saved_gpts(gpts(0, plants=[equal_keys, dead_neurons]), Path(folder) / "run")
        return flagscope.track(source).result


def curve(record: SeriesRecord, pair: str, number: str) -> SeriesCurve:
    """The curve of one number of one pair."""
    return next(one for one in record.curves if (one.pair, one.observable) == (pair, number))


def cell(page: Page, row: int, column: int) -> Locator:
    return page.locator(f"#map-grid td[data-r='{row}'][data-c='{column}']")


def shown_step(page: Page) -> str:
    return page.locator("#step-name").inner_text()


def slide(page: Page, key: str) -> None:
    page.locator("#step").focus()
    page.keyboard.press(key)


def line(page: Page, number: int) -> list[float | None]:
    """The values that the chart of one number draws."""
    all_drawn(page)
    return page.evaluate(
        """number => document.querySelector(`[data-number="${number}"] .plot`).data
          .find((trace) => trace.name === "value").y.map((value) => value ?? null)""",
        number,
    )


def test_a_cell_opens_its_curve_and_the_address_comes_back_to_it(opened: Open) -> None:
    page = opened(faulty())
    page.locator("#map-choice").select_option("Commutation defect")
    cell(page, 1, 2).click()
    target = "pair/layer.2.head.1.qk/commutation_defect/800"
    arrived(page, target, "pair-title")
    assert page.locator("#pair-title").inner_text() == "layer.2.head.1.qk"
    assert page.locator("#map-grid td.open").count() == 1
    assert "open" in (cell(page, 1, 2).get_attribute("class") or "")
    known = curve(faulty(), "layer.2.head.1.qk", "commutation_defect").values
    # In the order of the page: C, ρ, ν, …
    assert line(page, 2) == [pytest.approx(v, rel=1e-3) if v else None for v in known]
    page.reload()
    ready(page)
    assert address(page) == target
    assert page.locator("#pair-title").inner_text() == "layer.2.head.1.qk"
    assert page.locator("#map-choice option:checked").inner_text() == "Commutation defect"
    assert page.locator("figure.chosen [data-missing]").inner_text() == "No number at step 300."
    cell(page, 0, 0).click()
    arrived(page, "pair/layer.0.head.0.qk/commutation_defect/800", "pair-title")
    page.go_back()
    page.wait_for_function("() => document.getElementById('pair-title').textContent.includes('2')")
    assert address(page) == target


def test_a_keyboard_moves_the_slider_and_a_screen_reader_hears_the_step(opened: Open) -> None:
    page = opened(faulty())
    slider = page.get_by_role("slider", name="Step")
    assert slider.get_attribute("aria-valuetext") == (
        "step 800, checkpoint-800; 9 of 9; no fault found"
    )
    slide(page, "ArrowLeft")
    assert shown_step(page) == "step 700"
    page.wait_for_function("() => decodeURIComponent(location.hash).endsWith('/700')")
    slide(page, "Home")
    assert shown_step(page) == "step 0"
    for _ in range(3):
        slide(page, "ArrowRight")
    assert slider.get_attribute("aria-valuetext") == (
        "step 300, checkpoint-300; 4 of 9; faults: truncated; not measured: truncated"
    )
    assert page.evaluate("document.activeElement.id") == "step"
    before = page.evaluate("history.length")
    slide(page, "End")
    assert page.evaluate("history.length") == before
    page.reload()
    ready(page)
    assert shown_step(page) == "step 800"


def test_the_map_has_the_numbers_of_the_step_and_no_zero_for_a_missing_one(opened: Open) -> None:
    page = opened(faulty(), "#pair/layer.1.mlp/gram_correlation/200")
    known = curve(faulty(), "layer.1.mlp", "gram_correlation").values
    assert known[2] is not None
    said = cell(page, 4, 1).get_attribute("aria-label") or ""
    assert said.startswith("MLP, 1: layer.1.mlp: ρ = ")
    assert float(cell(page, 4, 1).inner_text().replace("−", "-")) == pytest.approx(
        known[2], abs=6e-3
    )
    slide(page, "ArrowRight")
    assert shown_step(page) == "step 300"
    cells = page.locator("#map-grid td[data-r]")
    assert set(cells.all_inner_texts()) == {""}
    assert cell(page, 4, 1).get_attribute("aria-label") == "MLP, 1: no number"
    assert page.locator("#map-grid td[data-opens]").count() == 0
    assert page.locator("#step-words").inner_text() == (
        "Faults: truncated. It was not measured: the map has no numbers."
    )


def test_cells_within_chance_are_marked_and_not_among_the_furthest(opened: Open) -> None:
    page = opened(faulty(), "#pair/layer.0.mlp/gram_correlation/0")
    some = [one for one in faulty().curves if one.observable == "gram_correlation"]
    first = [(one.low[0], one.values[0], one.high[0]) for one in some]
    within = 0
    for low, value, high in first:
        assert low is not None
        assert value is not None
        assert high is not None
        within += low <= value <= high
    assert page.locator("#map-grid td.within").count() == within
    assert page.locator("#map-list li").count() == min(5, len(some) - within)
    slide(page, "End")
    assert page.locator("#map-grid td.within").count() == 0
    assert page.locator("#map-list li").count() == 5
    # No random model says what chance gives an imbalance.
    page.locator("#map-choice").select_option("Imbalance")
    assert page.locator("#map-grid td.within").count() == 0
    assert page.locator("#map-furthest h3").inner_text() == "Largest"


def test_steps_with_faults_are_marked_and_faults_open_their_steps(opened: Open) -> None:
    page = opened(faulty())
    assert page.locator("#step-marks i").count() == 9
    assert page.locator("#step-marks i.fault").count() == 3
    page.locator("#integrity a", has_text="checkpoint-600").click()
    arrived(page, "step/600", "h-map")
    assert shown_step(page) == "step 600"
    assert page.locator("#step-words").inner_text().startswith("Faults: equal.")


def test_a_point_of_a_curve_opens_its_step(opened: Open) -> None:
    page = opened(bundled())
    all_drawn(page)
    trace = page.evaluate(
        """() => document.querySelector('[data-number="1"] .plot').data
          .findIndex((trace) => trace.name === "value")"""
    )
    click_point(page, '[data-number="1"] .plot', trace, 2)
    page.wait_for_function("() => document.getElementById('step-name').textContent === 'step 400'")
    assert address(page).endswith("/gram_correlation/400")


def test_the_step_axis_is_named_and_leaves_room_for_every_step(opened: Open) -> None:
    page = opened(bundled())
    all_drawn(page)
    ticks = """() => [...document.querySelectorAll('[data-number="1"] .xtick text')].map((one) => {
      const box = one.getBoundingClientRect(); return [one.textContent, box.left, box.right]; })"""
    found = page.evaluate(ticks)
    assert [text for text, *_ in found] == ["0", "80", "400", "2,000", "10,000"]
    assert all(left[2] < right[1] for left, right in itertools.pairwise(found))
    assert "logarithmic, log(1 + step / 80)" in page.locator("#curves-card").inner_text()
    page.locator("#axis-select").select_option("linear")
    assert "The step axis is linear." in page.locator("#curves-card").inner_text()
    assert "The step axis is linear." in page.locator("#steps").inner_text()
    page.wait_for_function(
        """() => document.querySelector('[data-number="1"] .plot').data.at(-1).x.at(-1) === 10000"""
    )


def test_nothing_moves_by_itself(opened: Open) -> None:
    page = opened(faulty())
    all_drawn(page)
    page.wait_for_timeout(1500)
    assert shown_step(page) == "step 800"
    assert address(page) == ""


def _saved(page: Page, button: Locator, folder: Path) -> tuple[str, list[list[str]]]:
    with page.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    if path.suffix != ".csv":
        return path.name, [[path.read_bytes()[:4].decode("latin-1")]]
    return path.name, list(csv.reader(StringIO(path.read_text(encoding="utf-8"))))


def test_figures_and_tables_are_saved(opened: Open, tmp_path: Path) -> None:
    page = opened(faulty(), "#pair/layer.1.mlp/gram_correlation/500", title="A run")
    all_drawn(page)
    figures = page.locator("figure")
    assert figures.count() == 8  # the path, the map, six numbers
    for place in range(8):
        figure = figures.nth(place)
        for ending in ("PNG", "SVG", "CSV") if place < 3 else ("CSV",):
            figure.locator(".save summary").click()
            button = figure.get_by_role("button", name=ending, exact=True)
            name, rows = _saved(page, button, tmp_path)
            assert name.startswith("A-run-")
            assert name.endswith(ending.lower())
            if ending == "CSV":
                assert len({len(row) for row in rows}) == 1
                assert len(rows) > 9
            else:
                assert rows == [["\x89PNG" if ending == "PNG" else "<svg"]]
    figure = page.locator('[data-number="1"]')
    figure.locator(".save summary").click()
    name, rows = _saved(page, figure.get_by_role("button", name="CSV", exact=True), tmp_path)
    assert rows[0] == ["step", "number", "Gram correlation", "chance, from", "to"]
    known = curve(faulty(), "layer.1.mlp", "gram_correlation")
    for row, value in zip(rows[1:], known.values, strict=True):
        assert row[2] == "" if value is None else float(row[2]) == pytest.approx(value, rel=1e-3)
    assert rows[4] == ["checkpoint-300", "300", "", "", ""]
    name, rows = _saved(page, page.locator("button.save-table").first, tmp_path)
    assert name == "A-run-steps.csv"
    assert rows[4][:4] == ["checkpoint-300", "300", "truncated", "truncated"]
    assert len(rows) == 10


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault_and_a_phone_need_not_scroll_sideways(
    opened: Open, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(faulty(), "#pair/layer.1.mlp/gram_correlation/100", scheme=scheme, width=width)
    page.locator("details.meaning").evaluate_all(
        "all => { for (const one of all) one.open = true; }"
    )
    all_drawn(page)
    found = axe.run(page).response
    faults = [(one["id"], one["nodes"][0]["html"][:160]) for one in found["violations"]]
    assert faults == []
    assert len(found["passes"]) > 20
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_series_without_curves_numbers_or_steps_have_pages(opened: Open) -> None:
    page = opened(faulty().model_copy(update={"curves": []}))
    all_drawn(page)
    assert page.locator("#map, #curves").count() == 0
    names = ["<b>a", "b", "c"]
    pairs = [(f"{i}-{i + 1}", "sequential", None) for i in range(4)]
    steps = made_series.steps_of([None] * 3, names=names)
    page = opened(made_series.record_of(steps, made_series.curves_of(pairs, 3)))
    all_drawn(page)
    assert shown_step(page) == "c"
    cell(page, 0, 2).click()
    assert address(page) == "pair/2-3/gram_correlation/place-3"
    page = opened(made_series.record_of([]))
    assert "0 checkpoints" in page.locator("#integrity").inner_text()
    page = opened(made_series.record_of(steps[:1], made_series.curves_of(pairs, 1)))
    all_drawn(page)
    assert shown_step(page) == "<b>a"


def test_a_run_is_chosen_and_no_run_is_joined_to_another(opened: Open, tmp_path: Path) -> None:
    record = tracked_series.made("runs")
    page = opened(record)
    all_drawn(page)
    assert page.locator("#step").get_attribute("max") == "3"
    pair = page.locator("#pair-title").inner_text()
    known = curve(record, pair, "gram_correlation").values
    assert line(page, 1) == [pytest.approx(value, rel=1e-3) for value in known[:4]]
    assert page.locator("[data-run-select]").count() == 4
    page.locator("#map [data-run-select]").select_option("seed-2")
    assert page.locator("#step").get_attribute("max") == "2"
    assert page.locator("#steps [data-run-select]").evaluate("one => one.value") == "2"
    assert line(page, 1) == [pytest.approx(value, rel=1e-3) for value in known[7:]]
    assert page.locator("#steps h3 [data-run-name]").inner_text() == ": seed-2"
    assert page.evaluate(
        """() => Math.max(...document.querySelector('[data-over-steps="path"] .plot').data[0].x)"""
    ) == 20  # fmt: skip
    slide(page, "Home")
    place = next(i for i, one in enumerate(record.steps) if one.name == "seed-2/checkpoint-0")
    assert address(page).endswith(f"/place-{place + 1}")
    page.reload()
    ready(page)
    assert page.locator("#map [data-run-select]").evaluate("one => one.value") == "2"
    assert shown_step(page) == "step 0"


def test_the_open_pair_has_its_onsets_its_jumps_and_its_bands(opened: Open, tmp_path: Path) -> None:
    record = tracked_series.made("runs")
    page = opened(record, "#pair/0-2/gram_correlation/place-1")
    all_drawn(page)
    said = page.locator("#pair-onsets li").all_inner_texts()
    own = [one for one in record.onsets if (one.run, one.pair) == ("seed-0", "0-2")]
    assert len(said) == sum(one.answer != "not-tested" for one in own)
    traces = """number => document.querySelector(`[data-${number}] .plot`).data
      .filter((one) => one.name === "jump").map((one) => one.x)"""
    assert page.evaluate(traces, 'number="1"') == [[10, 20]]
    assert page.evaluate(traces, 'number="0"') == []
    assert record.runs is not None
    band = next(one for one in record.runs.bands
                if (one.pair, one.observable) == ("0-2", "gram_correlation"))  # fmt: skip
    mean, lines = page.evaluate(
        """() => { const { data } = document.querySelector('[data-band="1"] .plot');
          return [data.at(-1).y, data.filter((one) => one.name.startsWith("seed")).length]; }"""
    )
    assert mean == [pytest.approx(value, rel=1e-3) for value in band.mean]
    assert lines == 3
    figure = page.locator('[data-band="1"]')
    figure.locator(".save summary").click()
    _, rows = _saved(page, figure.get_by_role("button", name="CSV", exact=True), tmp_path)
    assert rows[0][:3] == ["number", "runs", "mean"]
    assert [float(row[0]) for row in rows[1:]] == band.numbers
    page.locator("#jumps tbody a").click()
    arrived(page, "pair/0-2/gram_correlation/place-3", "pair-title")


@pytest.mark.parametrize("name", ["runs", "adapters", "rates"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault_in_the_sections(
    opened: Open, name: str, scheme: str, width: int, tmp_path: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    record = tracked_series.made(name)
    page = opened(record, scheme=scheme, width=width)
    all_drawn(page)
    found = axe.run(page).response
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    if scheme == "dark":
        return
    names = set()
    for button in page.locator("button.save-table").all():
        table, rows = _saved(page, button, tmp_path)
        names.add(table)
        assert len(rows) > 1
        assert len({len(row) for row in rows}) == 1
    assert len(names) == page.locator("table[data-csv]").count()
    for figure in page.locator("[data-over-steps], [data-figure]").all():
        figure.locator(".save summary").click()
        button = figure.get_by_role("button", name="CSV", exact=True)
        _, rows = _saved(page, button, tmp_path)
        assert len({len(row) for row in rows}) == 1


def shown_charts(page: Page) -> list[str]:
    """Titles of the charts of what is open."""
    charts = page.locator("#curve-charts figure:visible h4")
    return [text.split("\n")[0].strip() for text in charts.all_inner_texts()]


def test_heads_have_a_map_and_curves_of_their_own(opened: Open) -> None:
    page = opened(with_heads())
    assert "Head overlap ratio" not in " ".join(shown_charts(page))
    page.locator("#map-choice").select_option("Distinct heads")
    rows = page.locator("#map-grid tbody th").all_inner_texts()
    assert rows == ["Query heads", "Key heads", "Value heads", "Output heads"]
    assert cell(page, 1, 1).inner_text() == "3"
    assert page.locator("#map-grid td.within").count() == 7
    assert page.locator("#map-list li").all_inner_texts() == ["layer.1.heads.k: 3"]
    cell(page, 1, 1).click()
    arrived(page, "pair/layer.1.heads.k/distinct_heads/50", "pair-title")
    assert len(shown_charts(page)) == 4
    said = page.locator("#pair-onsets li").all_inner_texts()
    assert said == ["heads 0 and 2, near-copies: by 30, not at 20"]
    all_drawn(page)
    known = page.evaluate(
        """() => document.querySelector("figure.chosen .plot").data
          .find((trace) => trace.name === "value").y"""
    )
    assert known == [4, 4, 4, 3, 3, 3]
    page.reload()
    ready(page)
    assert page.locator("#pair-title").inner_text() == "layer.1.heads.k"
    assert page.locator("#map-choice option:checked").inner_text() == "Distinct heads"


def test_a_number_of_another_part_opens_what_has_it(opened: Open) -> None:
    page = opened(with_heads(), "#pair/layer.1.heads.q/max_pair_ratio/20")
    page.locator("#map-choice").select_option("Gram correlation")
    title = page.locator("#pair-title")
    assert title.inner_text() == "layer.0.head.0.qk"
    assert page.locator("#kinds li").all_inner_texts() == [
        "layer.0.mlp: 7 dead neurons at checkpoint-50; the first step with any is checkpoint-30"
    ]
    # Neurons of a block stand next to the numbers of its pair.
    page.locator("#map-choice").select_option("Dead neurons")
    assert title.inner_text() == "layer.0.mlp"
    assert page.locator("#map-grid td[data-opens]").count() == 1
    assert len(shown_charts(page)) == 5
    page.locator("#pair-select").select_option("network")
    page.wait_for_function("() => document.getElementById('pair-title').textContent === 'network'")
    assert len(shown_charts(page)) == 3
    assert page.locator("figure.chosen h4").inner_text().startswith("dead Dead neurons")
    # An address with a number that the heads lack opens one that they have.
    page = opened(with_heads(), "#pair/layer.0.heads.k/imbalance/20")
    assert page.locator("#pair-title").inner_text() == "layer.0.heads.k"
    assert page.locator("figure.chosen:visible").count() == 1


@pytest.mark.parametrize("only", ["heads", "health"])
def test_series_of_one_part_have_pages(opened: Open, only: str, tmp_path: Path) -> None:
    source = saved_gpts(gpts(0, steps=3), tmp_path / "run")
    page = opened(flagscope.track(source, only=only).result)  # type: ignore[arg-type]
    all_drawn(page)
    assert shown_charts(page)
    assert page.locator("#map-grid td[data-opens]").count() == (8 if only == "heads" else 1)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_fault_where_heads_are_open(opened: Open, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(with_heads(), "#pair/layer.1.heads.k/distinct_heads/50", scheme=scheme,
                  width=width)  # fmt: skip
    all_drawn(page)
    found = axe.run(page).response
    assert [(one["id"], one["nodes"][0]["html"][:160]) for one in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
