"""The page of a series: self-contained, safe with any name, and the same from its JSON."""

from __future__ import annotations

import html
import re
from functools import partial
from pathlib import Path

import pytest

import flagscope
from flagscope.demo import checkpoints
from flagscope.records.series import SeriesCurve
from flagscope.report.series import curve_summaries, render_series
from flagscope.report.series import page as page_module
from flagscope.report.series.curve_table import curve_table, row_title
from flagscope.report.series.page import SECTIONS, faults_by_step
from flagscope.report.series.step_axis import step_axes
from flagscope.report.series.step_map import numbers_of, step_map
from report import made_series
from report.synthetic import HOSTILE
from report.test_page import _parsed, _without_data


@pytest.fixture(scope="module")
def report() -> flagscope.SeriesReport:
    """The bundled training."""
    return flagscope.track(Path(checkpoints()[0]).parent, kinds=("mlp", "ov"))


def without_script(page: str) -> str:
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))


def test_the_page_loads_nothing() -> None:
    page = render_series(made_series.faulty())
    elements = _parsed(page)
    assert elements.requests == []
    assert len(set(elements.ids)) == len(elements.ids)
    assert "default-src 'none'" in page
    assert "url(" not in _without_data(page)


def test_integrity_stands_first_and_needs_no_script() -> None:
    record = made_series.faulty()
    text = without_script(render_series(record))
    place = text.index("9 checkpoints; 2 faults")
    for fault in record.integrity.faults:
        for words in (fault.plain, fault.code, fault.evidence, *fault.tensors, *fault.steps):
            assert words in text
        place_of_fault = text.index(fault.plain)
        assert place < place_of_fault
        place = place_of_fault
    assert "No tensor was read whole." in text
    assert place < text.index("The path through the weights")
    assert "checkpoint-300 was not measured." in text


def test_names_are_text() -> None:
    record = made_series.faulty()
    steps = [step.model_copy(update={"name": HOSTILE, "number": None}) for step in record.steps]
    curves = [curve.model_copy(update={"pair": HOSTILE + curve.pair}) for curve in record.curves]
    faults = [record.integrity.faults[0].model_copy(update={"plain": HOSTILE, "steps": [HOSTILE]})]
    integrity = record.integrity.model_copy(update={"faults": faults, "frozen": [HOSTILE]})
    changed = {"steps": steps, "curves": curves, "integrity": integrity, "sources": [HOSTILE]}
    page = render_series(record.model_copy(update=changed))
    harmless = _parsed(render_series(record)).tags
    tags = _parsed(page).tags
    assert "img" not in tags
    assert tags.count("script") == harmless.count("script")
    assert "{{7*7}}" in page


def test_the_page_from_json_is_the_same(report: flagscope.SeriesReport, tmp_path: Path) -> None:
    page = report.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    report.to_json(tmp_path / "series.json")
    assert flagscope.SeriesReport.from_json(tmp_path / "series.json").to_html() == page


def test_a_page_has_a_title_and_keeps_paths_to_itself(report: flagscope.SeriesReport) -> None:
    folder = str(Path(checkpoints()[0]).parent)
    assert folder not in report.to_html()
    assert folder in report.to_html(paths=True)
    assert "<title>demo · series · flagscope</title>" in report.to_html()
    page = report.to_html(title="Mine & <theirs>")
    assert "<title>Mine &amp; &lt;theirs&gt; · series · flagscope</title>" in page
    assert ">Mine &amp; &lt;theirs&gt;</h1>" in page


def test_size_of_the_bundled_training_and_of_thirty_one_steps_of_twelve_layers(
    report: flagscope.SeriesReport,
) -> None:
    assert len(report.to_html().encode()) < 2.2e6
    assert len(render_series(made_series.large()).encode()) < 3e6


def test_every_pair_has_a_cell_of_its_own() -> None:
    pairs = made_series.transformer_pairs(3, 4)
    pairs += [
        ("layer.0.mlp.down-layer.1.q", "residual", 1),
        ("layer.0.mlp.down-layer.2.q", "residual", 2),
        ("layer.1.mlp.down-layer.2.q", "residual", 2),
        ("layer.2.mlp (adapter)", "mlp", 2),
        ("encoder.layer.0.head.1.qk", "qk", 0),
    ]
    table = curve_table(made_series.curves_of(pairs, 2))
    found = step_map(table.pairs)
    cells = [index for row in found.cells for index in row if index is not None]
    assert sorted(cells) == list(range(len(pairs)))
    for row, title in zip(found.cells, found.rows, strict=True):
        for index, column in zip(row, found.columns, strict=True):
            if index is not None:
                assert str(table.pairs[index].layer) == column
                assert title == row_title(table.pairs[index])
    assert found.column_title == "layer"
    alike = [(f"layer.0.mlp.{name}", "mlp", 0) for name in ("x", "x")]
    twice = [one.model_copy(update={"pair": f"layer.0.{i}"}) for i, one in enumerate(
        made_series.curves_of(alike[:1], 2) * 2)]  # fmt: skip
    assert step_map([twice[0], twice[0]]).rows == ["MLP, 0", "MLP, 0 (2)"]


def test_a_missing_value_stays_missing_and_others_are_rounded_to_four_digits() -> None:
    record = made_series.faulty()
    table = curve_table(record.curves)
    known = {(one.pair, one.observable): one for one in record.curves}
    for number in numbers_of(table):
        for pair, drawn in zip(table.pairs, number["curves"], strict=True):
            curve = known[pair.pair, number["field"]]
            for side, ends in zip(drawn, (curve.values, curve.low, curve.high), strict=True):
                for short, value in zip(side, ends, strict=True):
                    assert short == (None if value is None else pytest.approx(value, rel=5e-4))
            assert drawn[0][3] is None
    ends = {number["field"]: number["calibrated"] for number in numbers_of(table)}
    assert not ends.pop("imbalance")
    assert all(ends.values())


def test_colours_hold_every_step() -> None:
    table = curve_table(made_series.faulty().curves)
    for number in numbers_of(table):
        values = [v for drawn in number["curves"] for v in drawn[0] if v is not None]
        if number["scale"] == "ratio":
            assert max(values) <= number["limit"]
        else:
            assert max(abs(value) for value in values) <= number["limit"]


def test_very_many_pairs_become_medians_of_a_kind_in_a_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    curves = made_series.curves_of(made_series.transformer_pairs(4, 3), 5)
    table = curve_table(curves, most=100)
    assert table.grouped == 28
    assert [pair.pair for pair in table.pairs[:3]] == [
        "layer.0.qk, median of 3 pairs", "layer.0.ov, median of 3 pairs", "layer.0.mlp"
    ]  # fmt: skip
    first = table.numbers["imbalance"][0]
    assert first is not None
    some = sorted(c.values[4] or 0 for c in curves
                  if (c.kind, c.layer, c.observable) == ("qk", 0, "imbalance"))  # fmt: skip
    assert first.values[4] == some[1]
    assert first.label == "gauge"
    assert step_map(table.pairs).rows == ["Query–key", "Value–output", "MLP"]
    assert curve_table(curves).grouped == 0
    monkeypatch.setattr(page_module, "curve_table", partial(curve_table, most=100))
    page = render_series(made_series.record_of(made_series.steps_of(range(5)), curves))
    assert "Medians over the pairs of a kind in a layer, 28 pairs in all" in without_script(page)


@pytest.mark.parametrize(
    ("numbers", "keys"),
    [
        ([0, 1, 2, 4, 8, 16, 512, *range(1000, 30000, 1000)], ["log", "linear", "order"]),
        ([500, 1000, 1500, 2000, 2483], ["linear", "log", "order"]),
        ([0, 10], ["linear", "log", "order"]),
        ([7], ["order"]),
        ([3, None], ["order"]),
        ([], ["order"]),
    ],
)
def test_axes_follow_the_numbers(numbers: list[int | None], keys: list[str]) -> None:
    axes = step_axes(made_series.steps_of(numbers))
    assert [axis.key for axis in axes] == keys
    for axis in axes:
        assert axis.x == sorted(set(axis.x))
        assert len(axis.x) == len(numbers)
        if axis.tickvals and axis.ticktext:
            assert len(axis.tickvals) == len(axis.ticktext) <= 10
            assert axis.tickvals[0] == axis.x[0]
            assert axis.tickvals[-1] == axis.x[-1]


def test_faults_are_those_that_name_the_step() -> None:
    codes = [[fault.code for fault in here] for here in faults_by_step(made_series.faulty())]
    assert codes == [[], [], [], ["truncated"], [], ["equal"], ["equal"], [], []]


def test_sections_need_what_they_show() -> None:
    record = made_series.faulty()
    bare = record.model_copy(update={"curves": []})
    assert [one.id for one in SECTIONS if one.shown(bare)] == ["integrity", "steps", "details"]
    page = render_series(bare)
    assert 'href="#map"' not in page
    assert "this series has no curves" in page
    assert "this series has no curves" not in render_series(record)
    for one in SECTIONS:
        assert f'<section id="{one.id}"' in render_series(record)


def test_chance_at_the_last_step_is_a_range_and_missing_without_a_number() -> None:
    def curve(pair: str, value: float | None) -> SeriesCurve:
        return SeriesCurve(pair=pair, kind="mlp", layer=0, observable="commutator_ratio",
                           label="functional", values=[1.0, value], low=[0.5, 0.04],
                           high=[1.5, 3.4])  # fmt: skip

    def summary(*values: float | None) -> tuple[float | None, ...]:
        curves = [curve(f"p{i}", value) for i, value in enumerate(values)]
        record = made_series.record_of(made_series.steps_of([0, 1]), curves)
        (one,) = curve_summaries(record)
        return one.last, one.low, one.high

    assert summary(0.9, 0.7) == (pytest.approx(0.8), 0.04, 3.4)
    assert summary(0.9, None, None) == (None, None, None)
