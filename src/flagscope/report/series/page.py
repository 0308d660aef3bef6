"""The page of a series: one self-contained HTML file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from flagscope.observables import SERIES_EXPLANATIONS
from flagscope.records import with_texts
from flagscope.records.series import SeriesFault, SeriesRecord
from flagscope.report import wording
from flagscope.report.environment import assets, environment
from flagscope.report.payload import packed_json, packed_plotly
from flagscope.report.series.adapters import adapter_lines, adapter_summaries, nothing_stands_out
from flagscope.report.series.added_figures import MOST_RATES
from flagscope.report.series.added_tables import (
    change_points,
    dead_in_words,
    onset_rows,
    shown_steps,
    step_labels,
    ways,
)
from flagscope.report.series.changes import change_points_in_words
from flagscope.report.series.curve_table import curve_table
from flagscope.report.series.dead import dead_lines
from flagscope.report.series.motion import product_changes_in_words, tested_turns, turned_maps
from flagscope.report.series.onsets import WORDS, later_in_words
from flagscope.report.series.page_data import page_data, shows_bands, step_keys
from flagscope.report.series.rates import rates_lines
from flagscope.report.series.runs import START_WORDS, relations_in_words
from flagscope.report.series.text import curve_summaries, series_headline, value_in_words
from flagscope.shortening import shortened

_SCRIPTS = (
    "base", "route", "save", "figures", "print", "gauge", "map", "sortable", "table_csv",
    "step_axis", "step_curves", "run_curves", "series",
)  # fmt: skip
_STYLES = ("comparison", "series")
FRAMES = ("curves", "runs", "onsets", "motion", "adapters", "rates")  # of a report, if not empty
_TURNED, _JUMPS = 200, 500  # rows of a table; the CSV of the command line has all of them


class Section(NamedTuple):
    """A part of the page: its id and entry in the bar, its template, what it needs."""

    id: str
    title: str
    shown: Callable[[SeriesRecord], bool]

    @property
    def template(self) -> str:
        """Template of the section's id."""
        return f"series/{self.id}.html.j2"


SECTIONS = (
    Section("integrity", "Integrity", lambda _: True),
    Section("runs", "Runs", lambda record: record.runs is not None),
    Section("steps", "Steps", lambda record: bool(record.steps)),
    Section("map", "Map", lambda record: bool(record.curves)),
    Section("curves", "Curves", lambda record: bool(record.curves)),
    Section("kinds", "First and last", lambda record: bool(record.curves)),
    Section("onsets", "Onsets", lambda record: bool(onset_rows(record))),
    Section("jumps", "Jumps", lambda record: bool(record.curves and record.change_points)),
    Section("motion", "Motion", lambda record: bool(record.motion)),
    Section("rates", "Rates", lambda record: any(one.rates for one in record.rates)),
    Section("adapters", "Adapters", lambda record: bool(record.adapters)),
    Section("details", "Details", lambda _: True),
)
"""In the order of the page. A figure over the steps also needs an entry in `page_data`."""


def render_series(record: SeriesRecord, *, title: str | None = None) -> str:
    """A series as one HTML page: what is wrong with it, its steps, a map of each step, curves.

    Onsets, jumps, motion, rates, adapters and runs have a section each where there are any.

    The page is self-contained, and its content security policy forbids any request. Numbers of
    figures are rounded to four digits; the JSON has all of them. Above 20,000 pairs × steps,
    curves are medians over the pairs of a kind in a layer.

    Parameters
    ----------
    record
        All of a series.
    title
        Of the page, and the beginning of the names of files saved from it; the last part of the
        sources by default.

    Returns
    -------
    str
        UTF-8 HTML: 1.5 MB for Plotly, and some 0.1 MB for 300 pairs at 5 steps.
    """
    record = with_texts(record, shortened)
    style, script = assets(_SCRIPTS, _STYLES)
    table = curve_table(record.curves)
    faults = faults_by_step(record)
    data = page_data(record, table, faults)
    figures = [figure for run in data["runs"] for figure in run["figures"].values()]
    drawn = bool(table.pairs) or any(
        one["spec"]["data"] for one in (*figures, *data["figures"].values())
    )
    turned, jumps = turned_maps(record), change_points(record)
    return (
        environment()
        .get_template("series.html.j2")
        .render(
            style=style,
            script=script,
            plotly=packed_plotly() if drawn else "",
            data=packed_json(data),
            title=title or _name(record),
            record=record,
            integrity=record.integrity,
            headline=series_headline(record),
            sections=[one for one in SECTIONS if one.shown(record)],
            faults=faults,
            keys=dict(
                zip((step.name for step in record.steps), step_keys(record.steps), strict=True)
            ),
            has={name: any(run["figures"][name]["spec"]["data"] for run in data["runs"])
                 for name in ("path", "motion", "adapters")},
            figures=data["figures"],
            runs=[run["name"] for run in data["runs"]],
            axis_words=data["runs"][0]["axes"][0]["words"] if data["runs"] else "",
            shows_bands=shows_bands(record, table),
            start_words=START_WORDS,
            relations=list(relations_in_words(record.runs)) if record.runs else [],
            onsets=onset_rows(record),
            onset_words=WORDS,
            later=later_in_words,
            jump_lines=[line for one in record.change_points
                        for line in change_points_in_words(one)],
            jumps=jumps[:_JUMPS],
            jumps_left=len(jumps[_JUMPS:]),
            ways=ways(record),
            tested=tested_turns(record.motion),
            turned=turned[:_TURNED],
            turned_all=len(turned),
            product_lines=product_changes_in_words(record),
            products_tested=tested_turns(record.products),
            products_turned=turned_maps(record, products=True),
            most_turned=_TURNED,
            rates_lines=rates_lines,
            most_rates=MOST_RATES,
            adapter_lines=adapter_lines(record),
            adapter_nothing=nothing_stands_out(record),
            adapter_rows=adapter_summaries(record),
            shown_steps=shown_steps,
            step_labels=step_labels,
            dead=dead_in_words,
            table=table,
            numbers=data["numbers"],
            kinds=curve_summaries(record),
            value_in_words=value_in_words,
            dead_lines=dead_lines(record),
            observables=SERIES_EXPLANATIONS,
            wording=wording,
        )
    )  # fmt: skip


def render_series_summary(record: SeriesRecord) -> str:
    """Faults, runs and adapters as a small HTML fragment without script, for notebooks."""
    lines = list(relations_in_words(record.runs)) if record.runs else []
    frames = ["steps", *(name for name in FRAMES if getattr(record, name))]
    return (
        environment()
        .get_template("series_summary.html.j2")
        .render(
            record=record,
            headline=series_headline(record),
            faults=record.integrity.faults,
            lines=[*lines, *adapter_lines(record)],
            frames=frames,
        )
    )


def faults_by_step(record: SeriesRecord) -> list[list[SeriesFault]]:
    """The faults that name each step."""
    return [
        [fault for fault in record.integrity.faults if step.name in fault.steps]
        for step in record.steps
    ]


def _name(record: SeriesRecord) -> str:
    """What a page is called: a source, or the first of several; the number of several runs."""
    if record.runs is not None:
        return f"{len(record.runs.runs):,} runs"
    sources = record.sources
    names = [source.rstrip("/").split("/")[-1] or source for source in sources]
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else "series"
