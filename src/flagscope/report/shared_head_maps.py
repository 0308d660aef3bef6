"""Maps of layers and heads: how close each head is to another of its layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flagscope.records import HeadRecord, ScanResult
from flagscope.report.palette import diverging_scale
from flagscope.report.spec import Spec, axis, layout, rounded
from flagscope.report.tracks import HeadTrack, head_tracks

_LEAST, _MOST = 2.0, 32.0  # ends of the colour scale, in units of chance


@dataclass(frozen=True)
class HeadMap:
    """One space: a row for each layer and a cell for each head.

    Parameters
    ----------
    key, title
        Of the space, as of its track.
    layers
        Numbers of the layers.
    cells
        Overlap with the closest other head of the layer in units of chance; None where it is not
        known.
    """

    key: str
    title: str
    layers: tuple[int, ...]
    cells: tuple[tuple[float | None, ...], ...]

    @property
    def width(self) -> int:
        """The most heads of a layer."""
        return max(len(row) for row in self.cells)


def head_maps(result: ScanResult) -> list[HeadMap]:
    """The map of each space; empty without heads.

    The number of a head is the largest of its row of the matrix of its layer, as on the page. It is
    functional: no change of basis inside a head moves it.
    """
    return [_map(track) for track in head_tracks(result)]


def shade_limit(maps: list[HeadMap]) -> float:
    """The end of a colour scale that holds all of their numbers, at least 2, at most 32."""
    known = [value for one in maps for row in one.cells for value in row if value is not None]
    ends = [max(value, 1 / max(value, 1 / _MOST)) for value in known]
    return max(_LEAST, min(_MOST, max(ends, default=_LEAST)))


def head_map_spec(chosen: HeadMap, limit: float) -> Spec:
    """A heat map of layers and heads."""
    z = [
        [None if value is None else rounded(math.log2(max(value, 1 / (2 * limit))), 3)
         for value in row]
        for row in chosen.cells
    ]  # fmt: skip
    powers = [power for power in range(-5, 6) if 2.0 ** abs(power) <= limit]
    heat: Spec = {
        "type": "heatmap",
        "z": z,
        "x": [str(head) for head in range(chosen.width)],
        "y": [str(layer) for layer in chosen.layers],
        "customdata": [[rounded(value, 3) for value in row] for row in chosen.cells],
        "zmin": -math.log2(limit),
        "zmax": math.log2(limit),
        "colorscale": diverging_scale(),
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "layer %{y}, head %{x}<br>%{customdata:.3g} times chance<extra></extra>",
        "colorbar": {
            "title": {"text": "× chance", "font": {"size": 11, "color": "$muted"}},
            "tickvals": powers,
            "ticktext": [f"1/{2**-power}" if power < 0 else str(2**power) for power in powers],
            "tickfont": {"size": 11, "color": "$muted"},
            "outlinewidth": 0,
            "thickness": 10,
            "len": 0.8,
        },
    }
    style = {"type": "category", "showgrid": False, "ticks": "", "nticks": 16}
    return {
        "data": [heat],
        "layout": layout(x=axis("head", **style), y=axis("layer", **style, autorange="reversed")),
    }


def _map(track: HeadTrack) -> HeadMap:
    rows = tuple(_row(group) for group in track.groups)
    return HeadMap(track.key, track.title, tuple(group.layer for group in track.groups), rows)


def _row(group: HeadRecord) -> tuple[float | None, ...]:
    if group.pairwise is None or len(group.pairwise) < 2:
        return (None,) * group.count
    return tuple(max(row[:index] + row[index + 1 :]) for index, row in enumerate(group.pairwise))
