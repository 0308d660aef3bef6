"""The page of a series: one self-contained HTML file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flagscope.observables import EXPLANATIONS
from flagscope.records import with_texts
from flagscope.records.series import SeriesFault, SeriesRecord, StepRecord
from flagscope.report import wording
from flagscope.report.environment import assets, environment
from flagscope.report.palette import PALETTES
from flagscope.report.payload import packed_json, packed_plotly
from flagscope.report.series.curve_table import CurveTable, curve_table
from flagscope.report.series.path_figure import path_figure
from flagscope.report.series.step_axis import step_axes
from flagscope.report.series.step_map import numbers_of, step_map
from flagscope.report.series.text import curve_summaries, series_headline
from flagscope.report.spec import plain
from flagscope.shortening import shortened

_SCRIPTS = (
    "base", "route", "save", "figures", "print", "gauge", "map", "sortable", "table_csv",
    "step_axis", "step_curves", "series",
)  # fmt: skip
_STYLES = ("comparison", "series")
_FIRST = "gram_correlation"  # the number that is open at first: every pair has it at every step


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
    Section("steps", "Steps", lambda record: bool(record.steps)),
    Section("map", "Map", lambda record: bool(record.curves)),
    Section("curves", "Curves", lambda record: bool(record.curves)),
    Section("kinds", "First and last", lambda record: bool(record.curves)),
    Section("details", "Details", lambda _: True),
)
"""In the order of the page. A figure over the steps needs an entry in `_figures` besides."""


def render_series(record: SeriesRecord, *, title: str | None = None) -> str:
    """A series as one HTML page: what is wrong with it, its steps, a map of each step, curves.

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
    figures = _figures(record)
    keys = dict(zip((step.name for step in record.steps), _keys(record.steps), strict=True))
    drawn = bool(table.pairs) or any(one["spec"]["data"] for one in figures.values())
    data = _data(record, table, faults, figures)
    return (
        environment()
        .get_template("series.html.j2")
        .render(
            style=style,
            script=script,
            plotly=packed_plotly() if drawn else "",
            data=packed_json(data),
            title=title or _name(record.sources),
            record=record,
            integrity=record.integrity,
            headline=series_headline(record),
            sections=[one for one in SECTIONS if one.shown(record)],
            faults=faults,
            keys=keys,
            figures=figures,
            axis_words=data["axes"][0]["words"],
            table=table,
            numbers=data["numbers"],
            kinds=curve_summaries(record),
            observables=EXPLANATIONS,
            wording=wording,
        )
    )  # fmt: skip


def faults_by_step(record: SeriesRecord) -> list[list[SeriesFault]]:
    """The faults that name each step."""
    return [
        [fault for fault in record.integrity.faults if step.name in fault.steps]
        for step in record.steps
    ]


def _name(sources: Sequence[str]) -> str:
    """What a page is called: a source, or the first of several."""
    names = [source.rstrip("/").split("/")[-1] or source for source in sources]
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else "series"


def _figures(record: SeriesRecord) -> dict[str, dict[str, Any]]:
    """Figures over the steps by name; their x are places of steps in the series."""
    return {"path": path_figure(record)}


def _keys(steps: Sequence[StepRecord]) -> list[str]:
    """Names of the steps in the URL: their numbers, or their places from 1."""
    numbers = [step.number for step in steps]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return [str(number) for number in numbers]
    return [f"place-{place}" for place in range(1, len(steps) + 1)]


def _data(
    record: SeriesRecord,
    table: CurveTable,
    faults: Sequence[Sequence[SeriesFault]],
    figures: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the page's script reads."""
    measured = [
        any(curve.values[place] is not None for curve in record.curves)
        for place in range(len(record.steps))
    ]
    return {
        "palettes": PALETTES,
        "axes": [axis.payload() for axis in step_axes(record.steps)],
        "steps": [
            {
                "key": key,
                "name": step.name,
                "number": step.number,
                "label": _step_words(step),
                "hover": f"<b>{plain(_step_words(step))}</b>",
                "faults": list(dict.fromkeys(fault.code for fault in here)),
                "status": step.status,
                "measured": known,
            }
            for step, key, here, known in zip(
                record.steps, _keys(record.steps), faults, measured, strict=True
            )
        ],
        "figures": figures,
        "map": step_map(table.pairs).payload(),
        "pairs": [
            {"name": pair.pair, "kind": wording.KIND_WORDS.get(pair.kind, pair.kind)}
            for pair in table.pairs
        ],
        "numbers": numbers_of(table),
        "first": _FIRST,
    }


def _step_words(step: StepRecord) -> str:
    """A step in words: ``"step 400"``, or its name."""
    return step.name if step.number is None else f"{step.unit or 'step'} {step.number:,}"
