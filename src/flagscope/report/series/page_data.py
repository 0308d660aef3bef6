"""What the script of the page of a series reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flagscope.records.series import SeriesFault, SeriesRecord, StepRecord
from flagscope.records.series_runs import RunBand
from flagscope.report import wording
from flagscope.report.palette import PALETTES
from flagscope.report.series.added_figures import adapter_figure, motion_figure, rates_figure
from flagscope.report.series.curve_table import CurveTable
from flagscope.report.series.onsets import onset_in_words
from flagscope.report.series.path_figure import path_figure
from flagscope.report.series.run_axes import RunSteps, runs_of_steps
from flagscope.report.series.step_axis import StepAxis
from flagscope.report.series.step_map import numbers_of, step_maps
from flagscope.report.spec import plain, rounded

_FIRST = "gram_correlation"  # the number that is open at first: every pair has it at every step
_BAND = ("mean", "low", "high", "mean_low", "mean_high")


def page_data(
    record: SeriesRecord, table: CurveTable, faults: Sequence[Sequence[SeriesFault]]
) -> dict[str, Any]:
    """Steps and runs with their figures, the map, and every curve; JSON's own types alone."""
    measured = [
        any(curve.values[place] is not None for curve in record.curves)
        for place in range(len(record.steps))
    ]
    runs, shared = runs_of_steps(record)
    return {
        "palettes": PALETTES,
        "runs": [_run(record, run) for run in runs],
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
                record.steps, step_keys(record.steps), faults, measured, strict=True
            )
        ],
        "figures": {
            f"rates-{place}": rates_figure(found.rates) for place, found in enumerate(record.rates)
        },
        "maps": {part: one.payload() for part, one in step_maps(table).items()},
        "pairs": [
            {
                "name": pair.pair,
                "kind": wording.CURVE_WORDS.get(pair.kind, pair.kind),
                "part": pair.part,
            }
            for pair in table.pairs
        ],
        "numbers": numbers_of(table),
        "bands": _bands(record, table, shared),
        "first": _FIRST,
    }


def step_keys(steps: Sequence[StepRecord]) -> list[str]:
    """Names of the steps in the URL: their numbers, or their places from 1."""
    numbers = [step.number for step in steps]
    if None not in numbers and len(set(numbers)) == len(numbers):
        return [str(number) for number in numbers]
    return [f"place-{place}" for place in range(1, len(steps) + 1)]


def _run(record: SeriesRecord, run: RunSteps) -> dict[str, Any]:
    """One training: its steps and axes, its figures over the steps, what is said of each pair."""
    jumps: dict[str, dict[str, list[list[str]]]] = defaultdict(lambda: defaultdict(list))
    for found in (one for one in record.change_points if one.run == run.name):
        for point in found.points:
            jumps[point.pair][point.observable].append([point.after, point.by])
    reached: dict[str, list[str]] = defaultdict(list)
    for onset in record.onsets:
        if onset.run == run.name and onset.answer != "not-tested":
            reached[onset.pair].append(onset_in_words(onset))
    return {
        "name": run.name,
        "places": run.places,
        "axes": [axis.payload() for axis in run.axes],
        "numbered": run.numbered,
        "figures": {
            "path": path_figure(record, run.name),
            "motion": motion_figure(record, run.name),
            "adapters": adapter_figure(record, run.name),
        },
        "onsets": reached,
        "jumps": jumps,
    }


def _bands(
    record: SeriesRecord, table: CurveTable, axes: Sequence[StepAxis]
) -> dict[str, Any] | None:
    """Mean and range over the runs; None for one training, and where pairs are put together."""
    if not shows_bands(record, table):
        return None
    assert record.runs is not None
    numbers = sorted({step.number for step in record.steps if step.number is not None})
    places = {number: place for place, number in enumerate(numbers)}
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for band in record.runs.bands:
        found[band.observable][band.pair] = _band(band, places)
    return {"numbers": numbers, "axes": [axis.payload() for axis in axes], "of": found}


def shows_bands(record: SeriesRecord, table: CurveTable) -> bool:
    """Whether the page has curves over all runs."""
    return record.runs is not None and bool(record.runs.bands) and not table.grouped


def _band(band: RunBand, places: dict[int, int]) -> dict[str, Any]:
    ends = {field: [rounded(value) for value in getattr(band, field)] for field in _BAND}
    return {"places": [places[number] for number in band.numbers], "runs": band.runs, **ends}


def _step_words(step: StepRecord) -> str:
    """A step in words: ``"step 400"``, or its name."""
    return step.name if step.number is None else f"{step.unit or 'step'} {step.number:,}"
