"""Tables of a series."""

from __future__ import annotations

import pandas

from flagscope.records.series import SeriesRecord, StepRecord
from flagscope.records.series_changes import ChangePoint
from flagscope.records.series_onsets import Onset

_CURVES = (
    "step",
    "number",
    "pair",
    "kind",
    "layer",
    "observable",
    "value",
    "low",
    "high",
    "label",
    "run",
    "part",
)


def steps_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each checkpoint."""
    rows = [step.model_dump() for step in record.steps]
    return pandas.DataFrame(rows, columns=list(StepRecord.model_fields))


def curves_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each number of each curve at each step that has it."""
    rows = [
        (step.name, step.number, curve.pair, curve.kind, curve.layer, curve.observable, value, low,
         high, curve.label, step.run, curve.part)
        for curve in record.curves
        for step, value, low, high in zip(
            record.steps, curve.values, curve.low, curve.high, strict=True
        )
        if value is not None
    ]  # fmt: skip
    # The network has no layer, which must not make the layers of others fractions.
    return pandas.DataFrame(rows, columns=list(_CURVES)).astype({"layer": "Int64"})


def onsets_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each test and level of each pair, of each run where there are several."""
    rows = [onset.model_dump() for onset in record.onsets]
    return pandas.DataFrame(rows, columns=list(Onset.model_fields))


def change_points_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each jump of a curve, of each run where there are several."""
    rows = [
        {"run": found.run, **point.model_dump()}
        for found in record.change_points
        for point in found.points
    ]
    return pandas.DataFrame(rows, columns=["run", *ChangePoint.model_fields])
