"""The small figure of a notebook: plain SVG, which needs neither script nor a browser to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flagscope.observables import null_band
from flagscope.records import ScanResult
from flagscope.report.environment import environment
from flagscope.report.palette import PALETTES
from flagscope.report.shared_head_maps import HeadMap, head_maps, shade_limit
from flagscope.report.tracks import Track, tracks
from flagscope.report.wording import measured, number

_CELL = 11  # pixels
_MOST_CELLS = 512  # of one map: a notebook keeps what it shows
_STEPS = 5  # colours on either side of the neutral one
_WIDTH, _HEIGHT = 420, 150  # of the profile
_TRACKS = 3
_POINTS = 240  # of one line
_COLOURS = ("raw", "balanced", "v")


@dataclass(frozen=True)
class _Square:
    x: float
    y: float
    colour: str
    text: str


@dataclass(frozen=True)
class _Panel:
    title: str
    x: float
    width: float
    height: float
    squares: tuple[_Square, ...]
    rows: tuple[tuple[float, int], ...]  # where the number of a layer stands


@dataclass(frozen=True)
class _Line:
    title: str
    colour: str
    points: tuple[tuple[float, float, str], ...]


def summary_svg(result: ScanResult) -> str:
    """Layers and heads where there are heads, else one number over depth; empty without either.

    Parameters
    ----------
    result
        A scan's result.

    Returns
    -------
    str
        An SVG element of at most some 100 kB, in the colour of the text around it.
    """
    maps = [one for one in head_maps(result) if any(v is not None for r in one.cells for v in r)]
    if maps and all(len(one.layers) * one.width <= _MOST_CELLS for one in maps):
        return _of_heads(maps)
    return _of_depth(tracks(result))


def _of_heads(maps: list[HeadMap]) -> str:
    limit, x, panels = shade_limit(maps), 0.0, []
    for one in maps:
        squares = tuple(
            _Square(
                24 + _CELL * head,
                24 + _CELL * row,
                _colour(value, limit),
                f"layer {one.layers[row]}, head {head}: {measured(value)} times chance",
            )
            for row, cells in enumerate(one.cells)
            for head, value in enumerate(cells)
        )
        step = len(one.layers) // 12 + 1
        rows = tuple(
            (33 + _CELL * row, layer) for row, layer in enumerate(one.layers) if row % step == 0
        )
        width = max(24 + _CELL * one.width, 8 * len(one.title)) + 16
        panels.append(_Panel(one.title, x, width, 30 + _CELL * len(one.layers), squares, rows))
        x += width
    palette = PALETTES["light"]
    scale = [(palette[f"d{i}"], limit ** ((i - _STEPS) / _STEPS)) for i in range(2 * _STEPS + 1)]
    return _drawn(
        "heads",
        panels=panels,
        width=max(x, 330),
        height=max(panel.height for panel in panels) + 34,
        cell=_CELL,
        scale=[(colour, number(value, 2)) for colour, value in scale],
        steps=_STEPS,
    )


def _colour(value: float | None, limit: float) -> str:
    if value is None:
        return "none"
    way = math.log(max(value, 1 / limit)) / math.log(limit)
    return PALETTES["light"][f"d{round(_STEPS * (1 + max(-1.0, min(1.0, way))))}"]


def _of_depth(known: list[Track]) -> str:
    shown = sorted(known, key=lambda track: -len(track.pairs))[:_TRACKS]
    field, title = _chosen(shown)
    values = [
        [
            (pair, value)
            for pair in track.pairs[:_POINTS]
            if (value := getattr(pair, field)) is not None
        ]
        for track in shown
    ]
    numbers = [value for entries in values for _, value in entries]
    if not numbers:
        return ""
    chance = 0.0 if field == "gram_correlation" else 1.0
    # What chance gives the first track: bands of several would hide each other.
    bands = [
        (at, band)
        for at, (pair, _) in enumerate(values[0])
        if (band := null_band(pair, field)) is not None
    ]
    limits = [end for _, band in bands for end in (band.low, band.high)]
    low, high = min(*numbers, *limits, chance), max(*numbers, *limits, chance)
    room = 0.08 * (high - low or 1.0)
    low, high = low - room, high + room

    def x(at: int, count: int) -> float:
        return round(46 + (_WIDTH - 66) * ((at + 0.5) / count), 1)

    def y(value: float) -> float:
        return round(20 + (_HEIGHT - 40) * (high - value) / (high - low), 1)

    lines = [
        _Line(
            track.title,
            PALETTES["light"][colour],
            tuple(
                (x(at, len(entries)), y(value), f"{pair.name}: {measured(value)}")
                for at, (pair, value) in enumerate(entries)
            ),
        )
        for track, entries, colour in zip(shown, values, _COLOURS, strict=False)
    ]
    return _drawn(
        "depth",
        title=title,
        lines=lines,
        bands=[
            (x(at, len(values[0])), y(band.high), max(1.0, y(band.low) - y(band.high)))
            for at, band in bands
        ],
        width=_WIDTH,
        height=_HEIGHT + 16,
        chance=y(chance),
        ticks=[(y(value), number(value, 2)) for value in (high - room, chance, low + room)],
    )


def _chosen(shown: list[Track]) -> tuple[str, str]:
    """The number that is drawn: overlap where most pairs have one, else the correlation."""
    pairs = [pair for track in shown for pair in track.pairs]
    if 2 * sum(pair.overlap_ratio is not None for pair in pairs) >= len(pairs):
        return "overlap_ratio", "Overlap of dominant spaces over chance"
    return "gram_correlation", "Gram correlation ρ (chance 0)"


def _drawn(kind: str, **values: object) -> str:
    return environment().get_template("summary_figure.html.j2").render(kind=kind, **values)
