"""Sparklines: a diagnostic through depth in one line of text, as inline SVG without script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from flagscope.observables import Band

_WIDTH, _HEIGHT, _PAD = 112.0, 30.0, 3.0


def sparkline(
    values: Sequence[float | None], bands: Sequence[Band | None], *, title: str
) -> Markup:
    """Values in order of depth, with the null's interval shaded and its mean dotted.

    Parameters
    ----------
    values
        One number a position; None leaves a gap.
    bands
        The null at each position, or None.
    title
        Spoken by screen readers; escaped here.

    Returns
    -------
    markupsafe.Markup
        An ``<svg>`` element; empty if there is no value.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    nulls = [band for band in bands if band is not None]
    edges = [edge for band in nulls for edge in (band.low, band.high)]
    low, high = min([*known, *edges]), max([*known, *edges])
    room = (high - low) or max(abs(high), 1.0)
    step = (_WIDTH - 2 * _PAD) / max(1, len(values) - 1)
    xs = [_PAD + step * i if len(values) > 1 else _WIDTH / 2 for i in range(len(values))]

    def y(value: float) -> float:
        return _HEIGHT - _PAD - (value - low) / room * (_HEIGHT - 2 * _PAD)

    parts = [_null(nulls, y), _path(xs, values, y)]
    last = max(i for i, value in enumerate(values) if value is not None)
    end = values[last]
    if end is not None and math.isfinite(end):
        parts.append(f'<circle class="end" cx="{xs[last]:.1f}" cy="{y(end):.1f}" r="2.2"/>')
    body = Markup("").join(Markup(part) for part in parts)
    return Markup(
        '<svg class="spark" role="img" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}" '
        'height="{h:.0f}"><title>{title}</title>{body}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, title=title, body=body)


def _null(nulls: Sequence[Band], y: Callable[[float], float]) -> str:
    if not nulls:
        return ""
    low, high = y(min(band.low for band in nulls)), y(max(band.high for band in nulls))
    mean = y(sum(band.mean for band in nulls) / len(nulls))
    return (
        f'<rect class="null" x="0" width="{_WIDTH:.0f}" y="{high:.1f}" '
        f'height="{max(0.0, low - high):.1f}"/>'
        f'<line class="mean" x1="0" x2="{_WIDTH:.0f}" y1="{mean:.1f}" y2="{mean:.1f}"/>'
    )


def _path(xs: Sequence[float], values: Sequence[float | None], y: Callable[[float], float]) -> str:
    commands, pen_up = [], True
    for x, value in zip(xs, values, strict=True):
        if value is None:
            pen_up = True
            continue
        commands.append(f"{'M' if pen_up else 'L'}{x:.1f} {y(value):.1f}")
        pen_up = False
    return f'<path class="line" d="{"".join(commands)}"/>'
