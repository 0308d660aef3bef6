"""The way through a series: how far each step lies from the first, the one before, the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flagscope.records.series import SeriesRecord, StepRecord
from flagscope.report.depth_figures import marker
from flagscope.report.spec import axis, layout, line, plain
from flagscope.report.wording import measured

_LINES = (
    ("distance_first", "from the first", "$q", "solid", "circle"),
    ("distance", "from the step before", "$k", "dash", "square"),
    ("distance_last", "from the last", "$v", "dot", "diamond"),
)


def path_figure(record: SeriesRecord, run: str | None = None) -> dict[str, Any]:
    """Three distances of each step; x is the place of a step in its run."""
    steps = record.steps_of(run)
    data = [
        line(
            list(range(len(steps))),
            [getattr(step, field) for step in steps],
            name=name,
            color=color,
            text=[_text(step, name, getattr(step, field)) for step in steps],
            line={"color": color, "width": 2, "dash": dash},
            marker=marker(color, len(steps), symbol=symbol),
        )
        for field, name, color, dash, symbol in _LINES
        if any(getattr(step, field) is not None for step in steps)
    ]
    shape = layout(x=axis(showgrid=False), y=axis("distance", rangemode="tozero"), showlegend=True)
    return {
        "spec": {"data": data, "layout": shape},
        "alt": "Distance of each step from the first, from the one before and from the last"
        + ("" if run is None else f", in {run}"),
        "rows": _rows(steps),
    }


def _text(step: StepRecord, name: str, value: float | None) -> str:
    return f"<b>{plain(step.name)}</b><br>{name}: {measured(value)}"


def _rows(steps: Sequence[StepRecord]) -> list[list[Any]]:
    heading = ["step", "number", *(name for _, name, *_ in _LINES)]
    return [
        heading,
        *([step.name, step.number, *(getattr(step, field) for field, *_ in _LINES)]
          for step in steps),
    ]  # fmt: skip
