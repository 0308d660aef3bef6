"""The graph of links from head to head: layers from left to right, heads from top to bottom."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from flagscope.records import EdgeRecord, ScanResult
from flagscope.report.links import (
    HeadRows,
    LinkMeasure,
    beyond_chance,
    head_rows,
    judged,
    strongest_first,
)
from flagscope.report.spec import Spec, axis, layout, plain
from flagscope.report.targets import heads_target, layer_key, link_target
from flagscope.report.wording import READ_WORDS, number

_SPACES = ("q", "k", "v")
_BOWS = {"q": -0.3, "k": 0.0, "v": 0.3}  # rows: links between the same two heads lie side by side
_GAP = 0.06  # layers between a head and the ends of its links: writes leave right, reads come left
_STEPS = 12  # straight pieces of a curve
_HOVERED = (3, 6, 9)  # points of a curve that answer to the pointer
_WIDTHS = (1.0, 1.8, 2.8, 4.2)
_OPACITIES = (0.5, 0.65, 0.8, 0.95)
_LAYER, _MARGIN = 30, 70  # pixels
_MOST_LAYERS = 1000  # no stack has more, but a file may number its two layers 0 and 900,000
_ROWS = ((16, 26), (32, 17), (64, 11))  # up to so many heads a row has so many pixels
_ROW = 7


def link_graph_spec(
    result: ScanResult, stack: str, measure: LinkMeasure, *, limit: int | None = None
) -> Spec:
    """Links of one stack that are beyond chance under a measure, coloured by what reads them.

    Width and opacity grow with the logarithm of |z|; dotted links are below chance. ``limit`` draws
    no more than so many, the furthest from chance.
    """
    flags = beyond_chance(result, measure)
    some = [
        edge
        for edge, far in zip(result.edges, flags, strict=True)
        if far and edge.stack == stack and judged(edge, measure).z is not None
    ]
    shown = strongest_first(some, measure)[:limit]
    if not shown:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    rows = head_rows(result, stack)
    data = [_heads(shown, rows)]
    grades = _grades(shown, measure)
    for space in _SPACES:
        links = [edge for edge in shown if edge.space == space]
        if links:
            data += _space(links, space, grades, rows, measure)
    return {"data": data, "layout": _layout(shown, rows)}


def link_graph_size(result: ScanResult, stack: str) -> tuple[int, int]:
    """Width and height in pixels below which the graph of a stack cannot be read."""
    edges = [edge for edge in result.edges if edge.stack == stack]
    layers = [layer for edge in edges for layer in (edge.layer_from, edge.layer_to)]
    heads = head_rows(result, stack).heads
    row = next((pixels for most, pixels in _ROWS if heads <= most), _ROW)
    width = _LAYER * len(_layers(edges)) if layers else 0
    return width + _MARGIN, max(260, row * heads + 2 * _MARGIN)


def _grades(edges: Sequence[EdgeRecord], measure: LinkMeasure) -> dict[int, int]:
    """For each link, by id, which width it gets: quarters of the range of log |z|."""
    sizes = {id(edge): math.log(max(1e-9, abs(judged(edge, measure).z or 0.0))) for edge in edges}
    low, high = min(sizes.values()), max(sizes.values())
    step = (high - low) / len(_WIDTHS)
    last = len(_WIDTHS) - 1
    return {
        key: last if step == 0 else min(last, int((size - low) / step))
        for key, size in sizes.items()
    }


def _curve(edge: EdgeRecord, rows: HeadRows) -> tuple[list[float], list[float]]:
    """From the right side of the writing head to the left side of the reading one."""
    start, end = edge.layer_from + _GAP, edge.layer_to - _GAP
    top, bottom = rows.of("o", edge.head_from), rows.of(edge.space, edge.head_to)
    x, y = [], []
    for step in range(_STEPS + 1):
        part = step / _STEPS
        bow = _BOWS[edge.space] * math.sin(math.pi * part)
        x.append(round(start + (end - start) * part, 3))
        y.append(round(top + (bottom - top) * part**2 * (3 - 2 * part) + bow, 3))
    return x, y


def _space(
    edges: Sequence[EdgeRecord], space: str, grades: dict[int, int], rows: HeadRows,
    measure: LinkMeasure,
) -> list[Spec]:  # fmt: skip
    """All links to one space: lines by grade, points that answer to the pointer, the legend."""
    drawn: dict[tuple[int, bool], tuple[list[float | None], list[float | None]]] = {}
    hover: tuple[list[float], list[float], list[str]] = ([], [], [])
    targets: list[str] = []
    for edge in reversed(edges):  # the furthest from chance on top
        x, y = _curve(edge, rows)
        below = (judged(edge, measure).ratio or 0.0) < 1
        lines = drawn.setdefault((grades[id(edge)], below), ([], []))
        lines[0].extend([*x, None])
        lines[1].extend([*y, None])
        for at in _HOVERED:
            hover[0].append(x[at])
            hover[1].append(y[at])
            hover[2].append(_text(edge))
            targets.append(link_target(edge))
    common = {"type": "scatter", "legendgroup": space}
    color = f"${space}"
    traces: list[Spec] = [
        {
            **common, "mode": "lines", "x": x, "y": y, "hoverinfo": "skip", "showlegend": False,
            "opacity": _OPACITIES[grade],
            "line": {"color": color, "width": _WIDTHS[grade], "dash": "dot" if below else "solid"},
        }
        for (grade, below), (x, y) in sorted(drawn.items(), key=lambda item: item[0])
    ]  # fmt: skip
    name = f"to {READ_WORDS[space]} ({len(edges)})"
    points: Spec = {
        **common, "mode": "markers", "x": hover[0], "y": hover[1], "text": hover[2],
        "hovertemplate": "%{text}<extra></extra>", "showlegend": False, "name": name,
        "customdata": targets,
        "marker": {"size": 12, "color": color, "opacity": 0},
    }  # fmt: skip
    key: Spec = {
        **common, "mode": "lines", "x": [None], "y": [None], "name": name, "hoverinfo": "skip",
        "line": {"color": color, "width": 3},
    }  # fmt: skip
    return [*traces, points, key]


def _text(edge: EdgeRecord) -> str:
    overlap, circuit = judged(edge, "overlap"), judged(edge, "composition")
    head = "key-value head" if edge.space != "q" else "head"
    adjusted = "" if edge.p_adjusted is None else f"; adjusted p = {edge.p_adjusted:.2g}"
    return "<br>".join(
        (
            f"<b>{plain(edge.source)} → {plain(edge.target)}</b>",
            f"head {edge.head_from} of layer {edge.layer_from} to the "
            f"{READ_WORDS[edge.space]} of {head} {edge.head_to} of layer {edge.layer_to}",
            f"overlap {number(overlap.ratio)} times chance; {overlap.text}{adjusted}",
            "no composition: a circuit that faces the stream on one side"
            if circuit.ratio is None
            else f"composition {number(edge.composition)}, its square {number(circuit.ratio)} "
            f"times chance; {circuit.text}",
        )
    )


def _heads(edges: Sequence[EdgeRecord], rows: HeadRows) -> Spec:
    """A dot for each query head of the layers in view, larger and darker where links meet it."""
    writes = Counter((edge.layer_from, rows.of("o", edge.head_from)) for edge in edges)
    reads = Counter((edge.layer_to, rows.of(edge.space, edge.head_to)) for edge in edges)
    layers = _layers(edges)
    grid = {(layer, float(head)) for layer in layers for head in range(rows.heads)}
    places = sorted(grid | {(layer, float(row)) for layer, row in (*writes, *reads)})
    met = [writes[place] + reads[place] for place in places]
    largest = max(met)
    text, targets = [], []
    stack = edges[0].stack
    for place in places:
        layer, row = place
        key = layer_key(stack, layer)
        # Between two rows lie key-value heads, by their own numbering.
        shared = math.floor((row + 0.5) * rows.shared / rows.heads)
        own = row.is_integer()
        targets.append(heads_target(f"{key}.{'o' if own else 'k'}", (int(row) if own else shared,)))
        who = f"head {int(row)}" if row.is_integer() else "key-value head"
        text.append(
            f"layer {layer}, {who}<br>shown links: {writes[place]} from it, {reads[place]} to it"
        )
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [layer for layer, _ in places],
        "y": [row for _, row in places],
        "text": text,
        "customdata": targets,
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
        "name": "heads",
        "marker": {
            "color": ["$ink" if count else "$axis" for count in met],
            "size": [round(5 + 5 * math.sqrt(n / largest), 1) if n else 2.5 for n in met],
        },
    }


def _layers(edges: Sequence[EdgeRecord]) -> Sequence[int]:
    """The layers in view: all between the first and the last, unless a file numbers them wildly."""
    met = sorted({layer for edge in edges for layer in (edge.layer_from, edge.layer_to)})
    every = range(met[0], met[-1] + 1)
    return every if len(every) <= _MOST_LAYERS else met


def _layout(edges: Sequence[EdgeRecord], rows: HeadRows) -> Spec:
    ends = min(e.layer_from for e in edges) - 0.5, max(e.layer_to for e in edges) + 0.5
    step = math.ceil((ends[1] - ends[0]) / 40)
    x = axis("layer", showgrid=False, range=list(ends), dtick=step, tick0=0)
    side = axis("head", showgrid=False, range=[rows.heads - 0.4, -0.6], tick0=0)
    side["dtick"] = 1 if rows.heads <= 16 else 4 if rows.heads <= 64 else 8
    return layout(x=x, y=side, showlegend=True)
