"""The page of a series: self-contained, safe with any name, and the same from its JSON."""

from __future__ import annotations

import html
import re
from functools import partial
from pathlib import Path

import pytest

import flagscope
from flagscope.demo import checkpoints
from flagscope.records import CurvePart
from flagscope.records.series import SeriesCurve
from flagscope.records.series_rates import PairRate, SeriesRates
from flagscope.report.series import (
    adapter_lines,
    curve_summaries,
    dead_lines,
    rates_lines,
    relations_in_words,
    render_series,
    turned_maps,
)
from flagscope.report.series import page as page_module
from flagscope.report.series.curve_table import curve_table, row_title
from flagscope.report.series.page import SECTIONS, faults_by_step
from flagscope.report.series.page_data import page_data
from flagscope.report.series.run_axes import runs_of_steps
from flagscope.report.series.step_axis import step_axes
from flagscope.report.series.step_map import numbers_of, step_map, step_maps
from report import made_series, tracked_series
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


def test_heads_and_health_have_maps_of_their_own_and_are_never_put_together() -> None:
    def curve(part: CurvePart, pair: str, kind: str, layer: int | None, name: str) -> SeriesCurve:
        return SeriesCurve(part=part, pair=pair, kind=kind, layer=layer, observable=name,
                           label=None, values=[1.0] * 5, low=[None] * 5,
                           high=[None] * 5)  # fmt: skip

    network = curve("health", "network", "network", None, "dead_neurons")
    heads = [curve("heads", f"layer.{layer}.heads.k", "k", layer, "distinct_heads")
             for layer in range(4)]  # fmt: skip
    dead = curve("health", "layer.1.mlp", "mlp", 1, "dead_neurons")
    pairs = made_series.curves_of(made_series.transformer_pairs(4, 3), 5)
    table = curve_table([*pairs, *heads, network])
    maps = step_maps(table)
    assert (maps["heads"].rows, maps["heads"].columns) == (["Key heads"], ["0", "1", "2", "3"])
    assert (maps["health"].rows, maps["health"].column_title) == (["Network"], "place in order")
    assert maps["pairs"] == step_map(curve_table(pairs).pairs)
    # A block with dead neurons is the pair of its maps; the network then is among the curves alone.
    table = curve_table([*pairs, *heads, network, dead])
    (cell,) = [cell for row in step_maps(table)["health"].cells for cell in row]
    assert cell is not None
    assert table.pairs[cell].pair == "layer.1.mlp"
    assert table.pairs[cell].part == "pairs"
    grouped = curve_table([*pairs, *heads, network], most=100)
    assert grouped.grouped == 28
    assert [pair.pair for pair in grouped.pairs[-5:]] == [one.pair for one in [*heads, network]]


def test_of_many_blocks_with_dead_units_the_worst_are_named_in_each_run() -> None:
    runs = [step.model_copy(update={"run": run, "name": f"{run}/{step.name}"})
            for run in "ab" for step in made_series.steps_of([0, 10])]  # fmt: skip
    blocks = [
        SeriesCurve(part="health", pair=f"layer.{place}.mlp", kind="mlp", layer=place,
                    observable="dead_neurons", label=None, low=[None] * 4, high=[None] * 4,
                    values=[0, place + 1, 0, 0 if place else None])
        for place in range(7)
    ]  # fmt: skip
    lines = dead_lines(made_series.record_of(runs, blocks))
    assert lines[0] == (
        "layer.6.mlp: 7 dead neurons at a/checkpoint-10; the first step with any is a/checkpoint-10"
    )
    assert lines[5:] == ["2 more blocks with dead units"]
    assert not any("b/" in line for line in lines)


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
    assert [one.id for one in SECTIONS if one.shown(record)] == [
        "integrity", "steps", "map", "curves", "kinds", "details"
    ]  # fmt: skip
    shown = [one.id for name in ("runs", "adapters", "rates") for one in SECTIONS
             if one.shown(tracked_series.made(name))]  # fmt: skip
    assert set(shown) == {one.id for one in SECTIONS}
    for name in ("runs", "adapters", "rates"):
        page = render_series(tracked_series.made(name))
        for one in SECTIONS:
            is_there = f'<section id="{one.id}"' in page
            assert is_there == one.shown(tracked_series.made(name))
            assert is_there == (f'href="#{one.id}"' in page)


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


def test_what_the_terminal_says_stands_on_the_page() -> None:
    runs, adapters, rates = (tracked_series.made(name) for name in ("runs", "adapters", "rates"))
    text = without_script(render_series(runs))
    assert runs.runs is not None
    for line in relations_in_words(runs.runs):
        assert line in text
    for turned in turned_maps(runs):
        assert turned.step in text
    (point,) = runs.change_points[0].points
    assert f"{point.after}{point.by}" in re.sub(r"(?<=\d) +", "", text)
    text = without_script(render_series(adapters))
    lines = adapter_lines(adapters)
    assert [line.partition(":")[0] for line in lines] == ["spike", "dead"]
    for line in lines:
        assert line in text
    text = without_script(render_series(rates))
    for line in rates_lines(rates.rates[0])[1:]:
        assert line in text


def test_runs_share_an_axis_and_each_has_its_own_steps() -> None:
    record = tracked_series.made("runs")
    runs, shared = runs_of_steps(record)
    assert [run.name for run in runs] == ["seed-0", "seed-1", "seed-2"]
    assert [place for run in runs for place in run.places] == list(range(len(record.steps)))
    (longer,) = [run for run in runs if len(run.places) == 4]
    assert shared[0].x == longer.axes[0].x
    for run in runs:
        numbers = [record.steps[place].number for place in run.places]
        assert run.axes[0].key == "linear"
        assert run.axes[0].x == numbers
        assert run.numbered == list(range(len(numbers)))
    bare = [step.model_copy(update={"number": None}) for step in record.steps]
    apart, _ = runs_of_steps(record.model_copy(update={"steps": bare}))
    assert [run.numbered for run in apart] == [None] * 3
    assert [len(run.axes[0].x) for run in apart] == [4, 3, 3]


def test_bands_and_onsets_in_the_page_are_those_of_the_record() -> None:
    record = tracked_series.made("runs")
    assert record.runs is not None
    data = page_data(record, curve_table(record.curves), faults_by_step(record))
    for band in record.runs.bands:
        drawn = data["bands"]["of"][band.observable][band.pair]
        assert [data["bands"]["numbers"][place] for place in drawn["places"]] == band.numbers
        assert drawn["mean"] == [v if v is None else pytest.approx(v, rel=5e-4) for v in band.mean]
    tested = [one for one in record.onsets if one.answer != "not-tested"]
    assert sum(len(said) for run in data["runs"] for said in run["onsets"].values()) == len(tested)
    for run in data["runs"]:
        rows = run["figures"]["motion"]["rows"]
        assert [row[0] for row in rows[1:]] == [s.name for s in record.steps_of(run["name"])]
        own = [one for one in record.motion if one.run == run["name"]]
        assert rows[2][1 + 1 :] == [one.relative_change[1] for one in own]


def test_a_notebook_shows_a_summary(report: flagscope.SeriesReport) -> None:
    adapters = tracked_series.made("adapters")
    shown = html.unescape(flagscope.SeriesReport(adapters)._repr_html_())
    assert "checkpoints; no fault found" in shown
    for line in (*adapter_lines(adapters), *adapters.integrity.not_looked_at):
        assert line in shown
    assert "<code>.adapters</code>" in shown
    assert "<code>.adapters</code>" not in report._repr_html_()
    assert str(Path(checkpoints()[0]).parent) not in report._repr_html_()
    faulty = html.unescape(flagscope.SeriesReport(made_series.faulty())._repr_html_())
    assert "checkpoint-300 is cut short." in faulty


def test_rates_with_a_prediction_stand_apart_from_those_without() -> None:
    rate = PairRate(pair="a", group=None, answer="rate", rate=1.0, low=0.9, high=1.1)
    rates = SeriesRates(
        optimiser="sgd", source="given", diagnostic="norms", notes=[],
        rates=[rate.model_copy(update={"predicted": 1.0}), rate],
    )  # fmt: skip
    assert rates_lines(rates)[1:] == [
        "1 pair: rate 1.000 (1.000 to 1.000); predicted 1: 1 lie within 2 % of it, and 1 of the "
        "95 % intervals, which are of scatter alone, hold it",
        "1 pair: rate 1.000 (1.000 to 1.000); none is predicted",
    ]
