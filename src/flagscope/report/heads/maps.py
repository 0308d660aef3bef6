"""The map of one space: the overlap of every two heads in units of chance, layers marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flagscope.records import ComparedHead
from flagscope.report.ratio_scale import LEAST, MOST, chance_bar
from flagscope.report.spec import Spec, axis, layout, rounded

# Heads with a cell for every two of them: 160,000 numbers a space. Of more, layers are drawn.
MOST_HEADS = 400
_COLOURS = 11


def space_map(heads: Sequence[ComparedHead], ratios: np.ndarray) -> Spec:
    """A heat map of heads and heads, or of layers and layers where there are many heads.

    Parameters
    ----------
    heads
        The heads that were measured, in the order of their layers.
    ratios
        Σcos² of every two of them over its mean by chance, shape (M, M).

    Returns
    -------
    dict
        A figure specification; without traces where fewer than two heads were measured.
    """
    if len(heads) < 2:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    apart = np.array(ratios, dtype=float)
    np.fill_diagonal(apart, np.nan)
    limit = float(min(MOST, max(LEAST, np.nanmax(apart))))
    if len(heads) > MOST_HEADS:
        return _by_layer(heads, apart, limit)
    names = [head.label.rpartition(".")[0] for head in heads]
    heat = _heat(names, [[_cell(value) for value in row] for row in apart.tolist()], limit)
    heat["hovertemplate"] = "%{y} and %{x}<br>%{z} times chance<extra></extra>"
    starts = [i for i, head in enumerate(heads) if i == 0 or head.layer != heads[i - 1].layer]
    middles = [(start + stop) // 2 for start, stop in _runs(starts, len(heads))]
    ticks = {
        "tickvals": [names[i] for i in middles],
        "ticktext": [str(heads[i].layer) for i in middles],
    }
    lines = [shape for start in starts[1:] for shape in _lines(start - 0.5)]
    return {"data": [heat], "layout": _layout("layer of the head", ticks, lines)}


def _by_layer(heads: Sequence[ComparedHead], apart: np.ndarray, limit: float) -> Spec:
    """The largest overlap between a head of one layer and a head of another."""
    layers = list(dict.fromkeys(head.layer for head in heads))
    places = {n: [i for i, head in enumerate(heads) if head.layer == n] for n in layers}
    cells: list[list[float | None]] = []
    texts: list[list[str]] = []
    for a in layers:
        row: list[float | None] = []
        who: list[str] = []
        for b in layers:
            block = apart[np.ix_(places[a], places[b])]
            if np.isnan(block).all():
                row.append(None)
                who.append("")
                continue
            i, j = np.unravel_index(int(np.nanargmax(block)), block.shape)
            pair = (heads[places[a][int(i)]], heads[places[b][int(j)]])
            row.append(_cell(float(block[i, j])))
            who.append(" and ".join(head.label.rpartition(".")[0] for head in pair))
        cells.append(row)
        texts.append(who)
    names = [str(layer) for layer in layers]
    heat = _heat(names, cells, limit)
    heat["customdata"] = texts
    heat["hovertemplate"] = (
        "layers %{y} and %{x}: at most %{z} times chance<br>%{customdata}<extra></extra>"
    )
    return {"data": [heat], "layout": _layout("layer", {}, [])}


def _heat(names: Sequence[str], cells: list[list[float | None]], limit: float) -> Spec:
    return {
        "type": "heatmap",
        "x": list(names),
        "y": list(names),
        "z": cells,
        "zmin": 0,
        "zmax": rounded(limit, 4),
        "colorscale": _scale(limit),
        "hoverongaps": False,
        "colorbar": _bar(limit),
    }


def _scale(limit: float) -> list[list[Any]]:
    """Neutral at chance, and even in the logarithm on both sides of it."""
    half = _COLOURS // 2
    stops = [[limit ** ((i - half) / half) / limit, f"$d{i}"] for i in range(_COLOURS)]
    return [[0.0, "$d0"], *([rounded(place, 5), colour] for place, colour in stops)]


def _bar(limit: float) -> Spec:
    values = [0.0, 1.0, limit] if limit <= 3 else [1.0, limit / 2, limit]
    return chance_bar(values, [f"{value:.3g}" for value in values])


def _layout(title: str, ticks: Spec, shapes: list[Spec]) -> Spec:
    style = {"type": "category", "showgrid": False, "ticks": "", **(ticks or {"nticks": 16})}
    return layout(
        x=axis(title, **style, constrain="domain"),
        y=axis(title, **style, autorange="reversed", scaleanchor="x", constrain="domain"),
        shapes=shapes,
    )


def _lines(place: float) -> list[Spec]:
    """A line across the map and one down it, where a layer begins."""
    style = {"type": "line", "line": {"color": "$axis", "width": 0.7}}
    return [
        {**style, "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"},
        {**style, "y0": place, "y1": place, "x0": 0, "x1": 1, "xref": "paper"},
    ]


def _runs(starts: Sequence[int], end: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], end], strict=True))


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else rounded(value, 3)
