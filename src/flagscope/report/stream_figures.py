"""Residual pairs over depth: one kind of writer, one line for each kind of reader."""

from __future__ import annotations

from flagscope.observables import EXPLANATIONS, Band, null_band
from flagscope.records import PairRecord
from flagscope.report.depth_figures import described, marker
from flagscope.report.routes import Route, Writer, reader_title
from flagscope.report.spec import Spec, axis, band, flat, layout, level, line
from flagscope.report.targets import pair_target

# C is not shown without ρ: it is small both for aligned and for orthogonal maps.
STREAMED = ("overlap_ratio", "commutator_ratio", "gram_correlation")
_COLOURS = {"q": "$q", "k": "$k", "v": "$v", "up": "$up", "gate": "$gate"}
_MARKERS = {"q": "circle", "k": "square", "v": "diamond", "up": "triangle-up", "gate": "cross"}
_DASHES = ("dot", "solid", "dash", "dashdot")  # by distance
_CLEAR = 7  # lines that can be distinguished; further ones wait in the legend
_LOG_ABOVE = 4.0


def stream_profile_spec(writer: Writer, observable: str) -> Spec:
    """One diagnostic of all that reads what one kind of map writes, over the readers' layers."""
    lines = [(way, _known(pairs, observable)) for way, pairs in writer.lines]
    lines = [(way, pairs) for way, pairs in lines if pairs]
    every = [pair for _, pairs in lines for pair in pairs]
    data = _null(every, observable) if every else []
    for place, (way, pairs) in enumerate(lines):
        data.append(_line(way, pairs, observable, hidden=place >= _CLEAR))
    x = axis("layer of the reader", showgrid=False)
    depths = {_depth(pair) for pair in every}
    x |= {"dtick": 1} if len(depths) <= 12 else {"nticks": 10, "tickformat": "d"}
    y = axis(EXPLANATIONS[observable].symbol)
    values = [getattr(pair, observable) for pair in every]
    if observable == "commutator_ratio" and values and max(values) > _LOG_ABOVE and min(values) > 0:
        y |= {"type": "log", "dtick": "D2", "tickformat": "~g"}
    elif observable == "overlap_ratio" and not flat(data):
        y |= {"rangemode": "tozero"}
    return {"data": data, "layout": layout(x=x, y=y)}


def _known(pairs: tuple[PairRecord, ...], observable: str) -> list[PairRecord]:
    return [pair for pair in pairs if getattr(pair, observable) is not None]


def _depth(pair: PairRecord) -> int:
    return pair.layer or 0


def _null(pairs: list[PairRecord], observable: str) -> list[Spec]:
    """The widest of the bands at each depth, since readers differ in rank."""
    at: dict[int, list[Band]] = {}
    for pair in pairs:
        found = null_band(pair, observable)
        if found is not None:
            at.setdefault(_depth(pair), []).append(found)
    if not at:
        return []
    x = sorted(at)
    low = [min(found.low for found in at[depth]) for depth in x]
    high = [max(found.high for found in at[depth]) for depth in x]
    mean = at[x[0]][0].mean
    return [
        band(x, low, high, name="95 % of chance values", color="$band", widen=0.4),
        level((x[0] - 0.4, x[-1] + 0.4), mean, name="chance"),
    ]


def _line(way: Route, pairs: list[PairRecord], observable: str, *, hidden: bool) -> Spec:
    role = way.reader.rpartition(".")[2]
    color = _COLOURS.get(role, "$other")
    changes: Spec = {"visible": "legendonly"} if hidden else {}
    dots = marker(color, len(pairs), symbol=_MARKERS.get(role, "star"))
    if way.distance == 0:
        dots["symbol"] += "-open"
    return line(
        [_depth(pair) for pair in pairs],
        [getattr(pair, observable) for pair in pairs],
        name=reader_title(way.reader, way.distance),
        color=color,
        text=[described(pair, observable, getattr(pair, observable)) for pair in pairs],
        customdata=[pair_target(pair) for pair in pairs],
        line={"color": color, "width": 1.8, "dash": _DASHES[min(way.distance, 3)]},
        marker=dots,
        **changes,
    )
