"""Ratios to chance in colour: the ends of their scale, a heat map of them, the bar next to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from flagscope.report.palette import diverging_scale
from flagscope.report.spec import Spec, rounded

LEAST, MOST = 2.0, 32.0  # the end of a scale: so little that noise stays pale, and the most


def ratio_limit(values: Iterable[float]) -> float:
    """The end of a scale (1/limit to limit) that holds all values, at least 2, at most 32.

    Examples
    --------
    >>> ratio_limit([0.25, 1.5]), ratio_limit([]), ratio_limit([0.0])
    (4.0, 2.0, 32.0)
    """
    furthest = max((max(value, 1 / max(value, 1 / MOST)) for value in values), default=LEAST)
    return min(max(LEAST, furthest), MOST)


def ratio_heat(
    rows: Sequence[str],
    columns: Sequence[str],
    ratios: Sequence[Sequence[float | None]],
    limit: float,
    *,
    gap: int,
    hover: str,
) -> Spec:
    """A heat map even in the logarithm, neutral at 1; ``customdata`` has the ratios themselves."""
    shown = [[rounded(ratio, 3) for ratio in row] for row in ratios]
    floor = 1 / (2 * limit)  # off the scale, for a ratio of 0
    powers = [power for power in range(-5, 6) if 2.0 ** abs(power) <= limit]
    return {
        "type": "heatmap",
        "z": [
            [None if ratio is None else rounded(math.log2(max(ratio, floor)), 3) for ratio in row]
            for row in shown
        ],
        "x": list(columns),
        "y": list(rows),
        "customdata": shown,
        "zmin": -math.log2(limit),
        "zmax": math.log2(limit),
        "colorscale": diverging_scale(),
        "xgap": gap,
        "ygap": gap,
        "hoverongaps": False,
        "hovertemplate": f"{hover}<br>%{{customdata:.3g}} times chance<extra></extra>",
        "colorbar": chance_bar(
            powers, [f"1/{2**-power}" if power < 0 else str(2**power) for power in powers]
        ),
    }


def chance_bar(values: Sequence[float], words: Sequence[str]) -> Spec:
    """The bar next to a heat map: what its colours stand for, in units of chance."""
    return {
        "title": {"text": "× chance", "font": {"size": 11, "color": "$muted"}},
        "tickvals": list(values),
        "ticktext": list(words),
        "tickfont": {"size": 11, "color": "$muted"},
        "outlinewidth": 0,
        "thickness": 10,
        "len": 0.8,
    }
