"""Points, cells and links open their pair, heads or link; the URL comes back to what was opened."""

from __future__ import annotations

import pytest

from browser.actions import address, all_drawn, arrived, click_point, drawn, traces
from browser.conftest import Open, ready, result
from flagscope.report import findings
from flagscope.report.targets import group_target, link_target, pair_target

HEADINGS = {
    "pair": "pair-title", "heads": "group-title", "track": "h-depth", "link": "link-title",
}  # fmt: skip


def test_a_point_of_every_figure_opens_its_object(opened: Open) -> None:
    page = opened("stream")
    page.locator("#stream-maps > summary").click()
    page.locator("#heads-depth > summary").click()
    page.locator("[data-gauge-switch]").first.check()
    all_drawn(page)
    figures = [
        *(f"[data-observable={name}] .plot" for name in ("commutator_ratio", "overlap_ratio")),
        *(f"[data-streamed={name}] .plot" for name in ("commutator_ratio", "gram_correlation")),
        "#head-overlap", "#head-shared", "#head-spectrum", "#link-graph",
    ]  # fmt: skip
    kinds = set()
    for selector in figures:
        drawn(page, selector)
        trace, point, target = next(
            (t, p, target)
            for t, one in reversed(list(enumerate(traces(page, selector))))
            for p, target in enumerate(one["targets"] or [])
            if isinstance(target, str)
        )
        # Where points lie on each other, the browser takes the one on top.
        known = [name for one in traces(page, selector) for name in one["targets"] or []]
        page.evaluate("history.replaceState(null, '', '#')")
        click_point(page, selector, trace, point)
        page.wait_for_function(
            "known => known.includes(decodeURIComponent(location.hash.slice(1)))", arg=known
        )
        kind = target.split("/")[0]
        kinds.add(kind)
        arrived(page, address(page), HEADINGS[kind])
    assert kinds == {"pair", "heads", "link"}


def test_a_cell_of_the_matrix_marks_its_two_heads(opened: Open) -> None:
    page = opened("small")
    drawn(page, "#head-matrix")
    heat = traces(page, "#head-matrix")[0]
    click_point(page, "#head-matrix", 0, [0, 2])
    key = address(page).split("/")[1]
    arrived(page, f"heads/{key}/{heat['y'][0]}-{heat['x'][2]}", "group-title")
    shapes = page.evaluate("document.getElementById('head-matrix').layout.shapes")
    ends = {(shape["x0"], shape["y0"]) for shape in shapes if shape["line"]["width"] == 3}
    assert ends == {(1.5, -0.5), (-0.5, 1.5)}


def test_back_forward_and_reload_come_back(opened: Open) -> None:
    page = opened("small")
    pair = result("small").pairs[3]
    group = result("small").heads[5]
    page.evaluate("location.hash = 'pair/layer.0.mlp'")
    arrived(page, "pair/layer.0.mlp", "pair-title")
    page.locator("#map-grid td[data-r='0'][data-c='0']").click()
    first = address(page)
    arrived(page, first, "group-title")
    page.locator(f"[data-table=pairs] a[data-target='{pair_target(pair)}']").click()
    arrived(page, pair_target(pair), "pair-title")
    page.go_back()
    arrived(page, first, "group-title")
    page.go_back()
    arrived(page, "pair/layer.0.mlp", "pair-title")
    assert page.locator("#pair-title").inner_text() == "layer.0.mlp"
    page.go_back()
    page.wait_for_function("location.hash === '' && scrollY === 0")
    assert page.locator(".marked").count() == 0
    page.go_forward()
    page.go_forward()
    page.go_forward()
    arrived(page, pair_target(pair), "pair-title")
    page.reload()
    ready(page)
    arrived(page, pair_target(pair), "pair-title")
    assert page.locator("#pair-title").inner_text() == pair.name
    assert page.locator("#track-tabs input:checked + span").inner_text().startswith("Value")
    # The depth figures ring the pair that is open.
    chart = "[data-observable=commutator_ratio] .plot"
    drawn(page, chart)
    ring = [trace for trace in traces(page, chart) if trace["name"] == "opened"]
    assert [(t["x"], [round(y, 3) for y in t["y"]]) for t in ring] == [
        ([pair.layer], [round(pair.commutator_ratio or 0, 3)])
    ]
    page.evaluate("target => { location.hash = target }", group_target(group, (1,)))
    arrived(page, group_target(group, (1,)), "group-title")


@pytest.mark.parametrize(
    ("given", "canonical", "heading"),
    [
        ("pair/2", 2, "pair-title"),
        ("heads/4", 4, "group-title"),
        ("heads/4/0-2", 4, "group-title"),
    ],
)
def test_places_of_the_json_open_too(
    opened: Open, given: str, canonical: int, heading: str
) -> None:
    page = opened("small", f"#{given}")
    known = result("small")
    if given.startswith("pair"):
        target = pair_target(known.pairs[canonical])
        assert page.locator("#pair-title").inner_text() == known.pairs[canonical].name
    else:
        marks = (0, 2) if given.endswith("0-2") else ()
        target = group_target(known.heads[canonical], marks)
        assert known.heads[canonical].space == target.split("/")[1][-1]
    assert page.evaluate("document.activeElement.id") == heading
    page.locator("#pair-next").click()  # steps are in the URL as well
    assert address(page).startswith("pair/")
    assert address(page) != target


def test_an_unknown_name_is_announced_and_harms_nothing(opened: Open) -> None:
    page = opened("small", "#pair/nowhere%2F%ZZ")
    assert "nothing called" in page.locator("#said").inner_text()
    assert page.locator(".marked").count() == 0
    for target in ("heads/none.layer.9.q/1", "track/x", "constructor/a", "link/a/b/c"):
        page.evaluate("target => { location.hash = target }", target)
        page.wait_for_function(
            "target => document.getElementById('said').textContent.includes(target)", arg=target
        )


def test_show_opens_the_object_of_every_finding(opened: Open) -> None:
    page = opened("demo")
    page.locator("#findings details").evaluate_all(
        "all => { for (const one of all) one.open = true; }"
    )
    known = [one.target for one in findings(result("demo")) if one.target]
    links = page.locator("#findings .show")
    shown = links.evaluate_all("all => all.map(one => one.dataset.target)")
    assert set(known) <= set(shown)
    for target in dict.fromkeys(shown):
        page.locator(f"#findings .show[data-target='{target}']").first.click()
        page.wait_for_function("document.querySelectorAll('.marked').length === 1")
        kind, _, name = target.partition("/")
        focused = page.evaluate("document.activeElement.id")
        if kind == "track":
            assert address(page) == target
            assert focused == "h-depth"
        elif kind in HEADINGS:
            assert address(page).startswith(f"{kind}/")
            assert focused == HEADINGS[kind]
        else:
            assert kind == "section"
            assert address(page) == name


def test_a_link_shows_its_numbers_and_leads_to_its_heads(opened: Open) -> None:
    page = opened("stream")
    edge = result("stream").edges[0]
    page.locator(f"[data-table=links] a[data-target='{link_target(edge)}']").click()
    arrived(page, link_target(edge), "link-title")
    assert page.locator("#link-title").inner_text() == f"{edge.source} → {edge.target}"
    # The graph draws its curve in ink, behind and over the others.
    drawn(page, "#link-graph")
    assert sum(t["name"] == "opened" for t in traces(page, "#link-graph")) == 2
    page.locator("#link-heads a").first.click()
    arrived(page, f"heads/decoder.layer.{edge.layer_from}.o/{edge.head_from}", "group-title")


def test_heads_lead_to_their_pairs_and_pairs_to_their_heads(opened: Open) -> None:
    page = opened("grouped", "#heads/encoder.layer.1.k/1")
    # Key-value head 1 serves query heads 4 to 7: their query-key and value-output pairs.
    names = page.locator("#group-marked a").all_inner_texts()
    assert sorted(names) == sorted(
        f"layer.1.head.{head}.{kind}" for head in range(4, 8) for kind in ("qk", "ov")
    )
    page.locator("#group-marked a", has_text="layer.1.head.5.qk").click()
    arrived(page, "pair/layer.1.head.5.qk", "pair-title")
    targets = page.locator("#pair-heads a").evaluate_all("all => all.map(a => a.dataset.target)")
    assert targets == ["heads/encoder.layer.1.q/5", "heads/encoder.layer.1.k/1"]
