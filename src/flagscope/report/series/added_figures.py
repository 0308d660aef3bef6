"""Figures of how maps move, of adapters and of rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flagscope.records.series import SeriesRecord
from flagscope.records.series_rates import PairRate
from flagscope.report.depth_figures import marker
from flagscope.report.series.text import median_of_known
from flagscope.report.spec import axis, layout, line, plain
from flagscope.report.wording import counted, measured

_COLOURS = ("$q", "$k", "$v", "$o", "$gate", "$other")
_DASHES = ("solid", "dash", "dot")
_MODULES = 6  # curves of adapters that a figure can keep apart
MOST_RATES = 60  # pairs whose intervals a figure has room for


def motion_figure(record: SeriesRecord, run: str | None) -> dict[str, Any]:
    """Relative change of maps since the step before: a line of medians for each role."""
    steps = record.steps_of(run)
    motions = [motion for motion in record.motion if motion.run == run]
    roles: dict[str, list[list[float | None]]] = defaultdict(list)
    for motion in motions:
        roles[motion.role].append(motion.relative_change)
    data = []
    for index, (role, changes) in enumerate(roles.items()):
        y = [median_of_known(values) for values in zip(*changes, strict=True)]
        name = f"{role}, median of {len(changes):,}" if len(changes) > 1 else role
        # Without a change there is no point: an axis of logarithms has no place for 0.
        shown = [value or None for value in y]
        text = [
            f"<b>{plain(step.name)}</b><br>{plain(name)}: {measured(value)}"
            for step, value in zip(steps, y, strict=True)
        ]
        data.append(_curve(shown, name, text, index))
    rows: list[list[Any]] = [["step", "number", *(motion.name for motion in motions)]]
    rows += [
        [step.name, step.number, *(motion.relative_change[place] for motion in motions)]
        for place, step in enumerate(steps)
    ]
    y_axis = axis("‖ΔW‖ / ‖W‖", type="log", tickformat="~g", dtick="D2")
    return _figure(data, y_axis, f"Relative change of maps{_of(run)}", rows)


def adapter_figure(record: SeriesRecord, run: str | None) -> dict[str, Any]:
    """Leading singular values over the other modules' median; the modules largest at the end."""
    steps = record.steps_of(run)
    modules = [curves for curves in record.adapters if curves.run == run]
    ordered = sorted(modules, key=lambda one: -(_last(one.values("leading_ratio")) or 0.0))
    data = []
    for index, curves in enumerate(ordered[:_MODULES]):
        y = curves.values("leading_ratio")
        text = [
            f"<b>{plain(step.name)}</b><br>{plain(curves.module)}: {measured(value)}"
            for step, value in zip(steps, y, strict=True)
        ]
        if any(value is not None for value in y):
            data.append(_curve(y, curves.module, text, index))
    rows: list[list[Any]] = [["step", "number", *(one.module for one in modules)]]
    rows += [
        [step.name, step.number, *(one.values("leading_ratio")[place] for one in modules)]
        for place, step in enumerate(steps)
    ]
    y_axis = axis("σ₁ / others' median", rangemode="tozero")
    return _figure(data, y_axis, f"Leading singular values over the median{_of(run)}", rows)


def rates_figure(rates: Sequence[PairRate]) -> dict[str, Any]:
    """Fitted rates with their intervals, and what is predicted; nothing over steps."""
    fitted = [one for one in rates if one.rate is not None][:MOST_RATES]
    names = [plain(one.pair) for one in fitted]
    points = {
        "type": "scatter", "mode": "markers", "name": "rate, 95 % interval",
        "x": [one.rate for one in fitted], "y": names,
        "error_x": {
            "type": "data", "symmetric": False, "color": "$raw", "thickness": 1.5,
            "array": [_gap(one.rate, one.high) for one in fitted],
            "arrayminus": [_gap(one.low, one.rate) for one in fitted],
        },
        "marker": {"color": "$raw", "size": 7},
        "text": [f"<b>{name}</b><br>{_interval(one)}"
                 for name, one in zip(names, fitted, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    predicted = {
        "type": "scatter", "mode": "markers", "name": "predicted",
        "x": [one.predicted for one in fitted if one.predicted is not None],
        "y": [plain(one.pair) for one in fitted if one.predicted is not None],
        "marker": {"color": "$chance", "size": 15, "symbol": "line-ns-open"}, "hoverinfo": "skip",
    }  # fmt: skip
    data = [points, predicted] if fitted else []
    y_axis = axis(type="category", autorange="reversed", showgrid=False)
    rows: list[list[Any]] = [["pair", "rate", "from", "to", "predicted"]]
    rows += [[one.pair, one.rate, one.low, one.high, one.predicted] for one in fitted]
    return {
        "spec": {"data": data, "layout": layout(x=axis("rate in decay time"), y=y_axis)},
        "alt": f"Rates of {counted(len(fitted), 'pair')} with their 95 % intervals",
        "rows": rows,
    }


def _of(run: str | None) -> str:
    return "" if run is None else f" of {run}"


def _interval(one: PairRate) -> str:
    expected = "" if one.predicted is None else f"; predicted {measured(one.predicted)}"
    return f"{measured(one.rate)} ({measured(one.low)} to {measured(one.high)}){expected}"


def _gap(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else high - low


def _curve(y: Sequence[float | None], name: str, text: Sequence[str], index: int) -> dict[str, Any]:
    color = _COLOURS[index % len(_COLOURS)]
    dash = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return line(
        list(range(len(y))), y, name=plain(name), color=color, text=text,
        line={"color": color, "width": 2, "dash": dash}, marker=marker(color, len(y)),
    )  # fmt: skip


def _figure(
    data: list[dict[str, Any]], y: dict[str, Any], alt: str, rows: list[list[Any]]
) -> dict[str, Any]:
    shape = layout(x=axis(showgrid=False), y=y, showlegend=True)
    return {"spec": {"data": data, "layout": shape}, "alt": alt, "rows": rows}


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
