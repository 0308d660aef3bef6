"""The small figure of a notebook: plain SVG, which needs neither script nor a browser to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flagscope.observables import null_band
from flagscope.records import PairRecord, ScanResult
from flagscope.report.environment import environment
from flagscope.report.palette import PALETTES
from flagscope.report.shared_head_maps import HeadMap, head_maps, shade_limit
from flagscope.report.tracks import tracks
from flagscope.report.wording import counted, measured, number

_CELL = 11  # pixels
_MOST_CELLS = 512  # of one map: a notebook keeps what it shows
_STEPS = 5  # colours on either side of the neutral one
_WIDTH, _HEIGHT = 420, 150  # of the profile
_POINTS = 300  # of the profile
_COLOURS = ("q", "k", "v", "o", "gate")  # of the kinds with most pairs
_LETTER = 6.5  # pixels, at most, of the font's mean letter
_TICK = 12  # pixels between two labels
_OF_HEADS = (
    "Overlap of each head with the closest other head of its layer (functional). Two random heads "
    "have 1 on average, the closest of several somewhat more."
)


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
class SmallFigure:
    """An SVG element and what it shows; both empty where there is nothing to draw."""

    svg: str = ""
    caption: str = ""


def small_figure(result: ScanResult) -> SmallFigure:
    """Layers and heads where there are heads, else one number over depth; empty without either.

    Parameters
    ----------
    result
        A scan's result.

    Returns
    -------
    SmallFigure
        Its SVG has at most some 100 kB, and the colour of the text around it.
    """
    maps = [one for one in head_maps(result) if any(v is not None for r in one.cells for v in r)]
    if maps and all(len(one.layers) * one.width <= _MOST_CELLS for one in maps):
        return SmallFigure(_of_heads(maps), _OF_HEADS)
    return _of_depth(result)


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


def _of_depth(result: ScanResult) -> SmallFigure:
    """Each pair at a place of its own, coloured by its kind."""
    every = _by_depth(result)
    field, title = _chosen(every)
    known = [pair for pair in every if getattr(pair, field) is not None]
    if not known:
        return SmallFigure()
    pairs = _sample(result, known)
    values = [getattr(pair, field) for pair in pairs]
    bands = [null_band(pair, field) for pair in pairs]
    chance = 0.0 if field == "gram_correlation" else 1.0
    limits = [end for band in bands if band is not None for end in (band.low, band.high)]
    low, high = min(*values, *limits, chance), max(*values, *limits, chance)
    room = 0.08 * (high - low or 1.0)
    low, high = low - room, high + room
    gap = (_WIDTH - 66) / len(pairs)

    def y(value: float) -> float:
        return round(20 + (_HEIGHT - 40) * (high - value) / (high - low), 1)

    places = [round(46 + gap * (at + 0.5), 1) for at in range(len(pairs))]
    colours, kinds = _kinds(result)
    legend, below = _legend(kinds)
    svg = _drawn(
        "depth",
        title=title,
        points=[
            (x, y(value), colours[pair.name], f"{pair.name}: {measured(value)}")
            for x, pair, value in zip(places, pairs, values, strict=True)
        ],
        radius=round(max(1.5, min(3.0, gap / 2)), 1),
        bands=[
            (x, y(band.high), max(1.0, y(band.low) - y(band.high)))
            for x, band in zip(places, bands, strict=True)
            if band is not None
        ],
        band_width=round(max(1.0, min(8.0, 0.8 * gap)), 1),
        legend=legend,
        width=_WIDTH,
        height=_HEIGHT + below,
        chance=y(chance),
        ticks=[
            (y(value), number(value, 2))
            for value in (high - room, chance, low + room)
            if value == chance or abs(y(value) - y(chance)) >= _TICK
        ],
    )
    caption = "Pairs in order of depth"
    without, more = len(every) - len(known), len(known) - len(pairs)
    if without:
        caption += f", {without:,} of {counted(len(every), 'pair')} left out as without this number"
    if more:
        caption += f", {more:,} more not drawn"
    return SmallFigure(svg, f"{caption}; grey: central 95 % by chance.")


def _by_depth(result: ScanResult) -> list[PairRecord]:
    """The pairs by stack and layer where all have a layer, else in the order of the scan."""
    if any(pair.layer is None for pair in result.pairs):
        return list(result.pairs)
    stacks = list(dict.fromkeys(pair.stack for pair in result.pairs))
    return sorted(result.pairs, key=lambda pair: (stacks.index(pair.stack), pair.layer or 0))


def _sample(result: ScanResult, known: list[PairRecord]) -> list[PairRecord]:
    """The pairs, or of each kind evenly spaced ones where there are too many to draw."""
    if len(known) <= _POINTS:
        return known
    every = tracks(result)
    most = max(1, _POINTS // len(every))
    kept = {
        pair.name for track in every for pair in track.pairs[:: math.ceil(len(track.pairs) / most)]
    }
    return [pair for pair in known if pair.name in kept]


def _kinds(result: ScanResult) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The colour of each pair by its name, and the kinds of pairs with theirs."""
    known = sorted(tracks(result), key=lambda track: -len(track.pairs))
    palette = PALETTES["light"]
    own = [palette[name] for name in _COLOURS[: len(known)]]
    own += [palette["other"]] * (len(known) - len(own))
    colours = {
        pair.name: colour for track, colour in zip(known, own, strict=True) for pair in track.pairs
    }
    kinds = [(track.title, colour) for track, colour in zip(known, own, strict=True)]
    others = len(kinds) - len(_COLOURS)
    if others > 1:
        kinds = [*kinds[:-others], (counted(others, "other kind"), palette["other"])]
    return colours, kinds


def _legend(kinds: list[tuple[str, str]]) -> tuple[list[tuple[float, float, str, str]], int]:
    """Where each kind is written, in as many lines as they need, and the height of these."""
    entries, x, y = [], 46.0, _HEIGHT + 10.0
    for title, colour in kinds:
        width = _LETTER * (len(title) + 2) + 12
        if x > 46 and x + width > _WIDTH:
            x, y = 46.0, y + 15
        entries.append((x, y, title, colour))
        x += width
    return entries, int(y) + 6 - _HEIGHT


def _chosen(pairs: list[PairRecord]) -> tuple[str, str]:
    """The number that is drawn: overlap where most pairs have one, else the correlation."""
    if 2 * sum(pair.overlap_ratio is not None for pair in pairs) > len(pairs):
        return "overlap_ratio", "Overlap of dominant spaces over chance"
    return "gram_correlation", "Gram correlation ρ (chance 0)"


def _drawn(kind: str, **values: object) -> str:
    return environment().get_template("summary_figure.html.j2").render(kind=kind, **values)
