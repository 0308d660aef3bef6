"""The page of a comparison: self-contained, safe with any name, and its controls work."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import flagscope
from flagscope.demo import checkpoints
from flagscope.report.comparison import render_comparison, render_comparison_summary
from flagscope.report.comparison.page import head_grids, layer_grids
from report.dumped import driven, needs_chromium, overhang
from report.test_page import _parsed


@pytest.fixture(scope="module")
def report() -> flagscope.ComparisonReport:
    """The bundled model at two of its steps."""
    before, after = (dict(load_file(path)) for path in checkpoints()[-2:])
    config = json.loads((checkpoints()[-1].parent / "config.json").read_text())
    return flagscope.compare(before, after, config=config)


def test_the_page_loads_nothing(report: flagscope.ComparisonReport) -> None:
    elements = _parsed(report.to_html())
    assert elements.requests == []
    assert len(set(elements.ids)) == len(elements.ids)
    assert "default-src 'none'" in report.to_html()


def test_verdict_and_findings_stand_in_it_without_a_script(
    report: flagscope.ComparisonReport,
) -> None:
    page = re.sub(r"<script.*?</script>", "", report.to_html(), flags=re.DOTALL)
    for text in (report.verdict.text, *report.verdict.evidence, *report.verdict.cannot_tell):
        assert html.escape(text, quote=False) in page.replace("&#39;", "'").replace("&#34;", '"')
    for finding in report.result.findings:
        assert finding.code in page


def test_the_page_says_how_many_singular_values_are_drawn(
    report: flagscope.ComparisonReport,
) -> None:
    assert "the largest, at most 16 of each side" in report.to_html()
    assert max(len(sides.product_spectrum_a) for sides in report.result.heads) <= 16


def test_names_are_text(report: flagscope.ComparisonReport) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    side = report.result.a.model_copy(update={"source": hostile})
    verdict = report.verdict.model_copy(update={"text": hostile})
    result = report.result.model_copy(update={"a": side, "verdict": verdict})
    for page in (render_comparison(result), render_comparison_summary(result)):
        assert "<img" not in page
        assert "&lt;img" in page


def test_grids_are_shaded_by_the_change_of_their_cell(report: flagscope.ComparisonReport) -> None:
    change = report.result.change
    assert change is not None
    (grid,) = layer_grids(change)
    shades = {cell.key: cell.shade for _, cells in grid.rows for cell in cells if cell}
    assert len(shades) == len(change.layers)
    moved = {f"{r.stack}/{r.layer}/{r.role}": r.relative_a * r.relative_b for r in change.layers}
    assert max(shades, key=shades.__getitem__) == max(moved, key=moved.__getitem__)
    assert max(shades.values()) == 1.0
    names = [cell.key for g in head_grids(change) for _, row in g.rows for cell in row if cell]
    assert sorted(names) == sorted(p.name for p in change.products if p.head is not None)


_DRIVE = """<script>
(async () => {
  const said = {};
  const wait = () => new Promise((done) => setTimeout(done, 300));
  const cell = document.querySelector('button[data-map$="/2/v"]');
  cell.click();
  await wait();
  said.hash = location.hash;
  const rows = [...document.querySelectorAll("tr[data-key]")];
  said.rows = rows.filter((row) => !row.hidden).map((row) => row.dataset.key);
  document.querySelector("#maps-filter button").click();
  said.all = [...document.querySelectorAll("tr[data-key]")].every((row) => !row.hidden);
  const head = document.querySelector('button[data-head="layer.1.head.3.ov"]');
  head.click();
  await wait();
  said.title = byId("head-title").textContent;
  said.pressed = head.getAttribute("aria-pressed");
  said.lines = document.querySelectorAll("#head-spectrum polyline").length;
  said.values = document.querySelectorAll("#head-values tr").length;
  const table = document.querySelector("table[data-sortable]");
  const sort = table.tHead.rows[0].cells[3].querySelector("button");
  sort.click();
  said.sorted = table.tHead.rows[0].cells[3].getAttribute("aria-sort");
  const numbers = [...table.tBodies[0].rows].map((row) => Number(row.cells[3].dataset.v));
  said.falling = numbers.every((value, i) => i === 0 || value <= numbers[i - 1]);
  location.hash = "#head=layer.0.head.0.qk";
  await wait();
  said.followed = byId("head-title").textContent;
  document.body.dataset.said = JSON.stringify(said);
})();
</script>"""


@needs_chromium
def test_controls_do_what_they_say(report: flagscope.ComparisonReport, tmp_path: Path) -> None:
    said = driven(report.to_html(), _DRIVE, tmp_path)
    assert said == {
        "hash": "#map=decoder%2F2%2Fv",
        "rows": ["decoder/2/v"],
        "all": True,
        "title": "layer.1.head.3.ov",
        "pressed": "true",
        "lines": 2,
        "values": said["values"],
        "sorted": "descending",
        "falling": True,
        "followed": "layer.0.head.0.qk",
    }
    assert said["values"] >= 3


@needs_chromium
@pytest.mark.parametrize("width", [390, 1300])
def test_it_fits_the_window(report: flagscope.ComparisonReport, tmp_path: Path, width: int) -> None:
    assert overhang(report.to_html(), tmp_path, width=width) == 0


def test_other_kinds_of_comparisons_have_pages() -> None:
    state = {"0.weight": torch.eye(8), "2.weight": torch.ones(4, 8)}
    other = {"a.weight": torch.ones(3, 5)}
    for pair in ((state, state), (state, other)):
        page = flagscope.compare(*pair).to_html()
        assert "Verdict" in page
        assert "Not measured" in page
