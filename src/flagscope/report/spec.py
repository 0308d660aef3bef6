"""Building blocks of figure specifications: plain dictionaries in Plotly's vocabulary.

Dictionaries cost microseconds where figure objects cost milliseconds, and a page holds hundreds;
`flagscope.report.figures` turns single ones into validated figure objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]


def plain(text: str) -> str:
    """Text with the characters escaped that Plotly would read as markup or as a template."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%&#123;")):
        text = text.replace(character, entity)
    return text


def rounded(value: float | None, digits: int = 4) -> float | None:
    """A number to ``digits`` significant digits, which is what a figure can show."""
    return None if value is None else float(f"{value:.{digits}g}")


def axis(title: str = "", **changes: Any) -> Spec:
    """An axis in the house style."""
    base: Spec = {
        "title": {"text": title, "font": {"size": 12, "color": "$muted"}, "standoff": 8},
        "gridcolor": "$grid",
        "linecolor": "$axis",
        "tickfont": {"size": 11, "color": "$muted"},
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }
    return base | changes


def layout(*, x: Spec, y: Spec, **changes: Any) -> Spec:
    """A layout in the house style: no frame, no background, small margins."""
    base: Spec = {
        "xaxis": x,
        "yaxis": y,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "$ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "$paper",
            "bordercolor": "$axis",
            "font": {"color": "$ink", "size": 12},
            "align": "left",
        },
        "showlegend": False,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    return base | changes


_FLAT = 0.25  # share of its largest value below which a figure does not begin at zero


def flat(data: Sequence[Spec]) -> bool:
    """Whether all values, chance included, lie so close together that an axis from 0 hides them.

    Examples
    --------
    >>> flat([{"y": [1.0, 1.004]}, {"y": [0.996, None]}]), flat([{"y": [1.0, 2.5]}])
    (True, False)
    """
    values = [value for trace in data for value in trace["y"] if value is not None]
    return bool(values) and min(values) > 0 and max(values) - min(values) < _FLAT * max(values)


def counts_only(largest: float) -> Spec:
    """Changes of an axis of counts: whole numbers, from 0, at most six of them.

    Examples
    --------
    >>> counts_only(1)["dtick"], counts_only(5)["dtick"], counts_only(23)["dtick"]
    (1, 1, 5)
    """
    step = 1
    while largest / step > 5:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return {"rangemode": "tozero", "tick0": 0, "dtick": step, "tickformat": ",d"}


def band(
    x: Sequence[float], low: Sequence[float], high: Sequence[float], *, name: str, color: str,
    widen: float = 0.0,
) -> Spec:  # fmt: skip
    """A filled band; ``widen`` extends it at both ends, and gives a single x a width."""
    x = [x[0] - widen, *x[1:-1], x[-1] + widen] if len(x) > 1 else [x[0] - 0.5, x[0] + 0.5]
    low, high = (list(v) if len(v) > 1 else [v[0], v[0]] for v in (low, high))
    return {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [rounded(v) for v in [*low, *reversed(high)]],
        "fill": "toself",
        "fillcolor": color,
        "line": {"width": 0, "color": color},
        "mode": "lines",
        "hoverinfo": "skip",
        "name": name,
    }


def line(
    x: Sequence[float], y: Sequence[float | None], *, name: str, color: str, text: Sequence[str],
    **changes: Any,
) -> Spec:  # fmt: skip
    """A line with markers, whose hover text is given."""
    base: Spec = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(x),
        "y": [rounded(v) for v in y],
        "name": name,
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 6},
        "text": list(text),
        "hovertemplate": "%{text}<extra></extra>",
    }
    return base | changes


def level(x: Sequence[float], y: float, *, name: str, dash: str = "dot") -> Spec:
    """A horizontal reference line from the first to the last x."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x[0], x[-1]],
        "y": [rounded(y), rounded(y)],
        "line": {"color": "$chance", "width": 1.3, "dash": dash},
        "hoverinfo": "skip",
        "name": name,
    }


def first_of(noun: str, shown: int, total: int) -> str:
    """Title of an axis of things, of which the first are drawn.

    Examples
    --------
    >>> first_of("direction", 16, 384), first_of("direction", 16, 16)
    ('direction (the first 16 of 384)', 'direction')
    """
    return noun if shown >= total else f"{noun} (the first {shown:,} of {total:,})"
