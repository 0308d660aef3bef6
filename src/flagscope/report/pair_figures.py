"""Figures of one pair: principal cosines, overlap over rank, incidence surface."""

from __future__ import annotations

from flagscope.observables import untestable
from flagscope.records import ArraySummary, PairRecord
from flagscope.report.effect import forced_dimension
from flagscope.report.palette import diverging_scale
from flagscope.report.spec import Spec, axis, first_of, layout, level, line, rounded
from flagscope.report.wording import number

_SHOWN = 256  # cosines drawn


def cosines_spec(pair: PairRecord) -> Spec:
    """Principal cosines against the 1 % critical value of the largest; forced ones are grey."""
    if pair.cosines is None:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    values = pair.cosines.top if isinstance(pair.cosines, ArraySummary) else list(pair.cosines)
    values = values[:_SHOWN]
    critical = pair.null.largest_cosine if pair.null is not None else None
    forced, closed = _forced(pair), untestable(pair)
    if closed:
        critical = None
    judged = [_judged(rank, value, forced, critical, closed) for rank, value in enumerate(values)]
    text = [
        f"cosine {rank} = {number(value)}<br>{words}"
        for rank, (value, (_, words)) in enumerate(zip(values, judged, strict=True), start=1)
    ]
    markers = {"color": [color for color, _ in judged], "size": 6}
    x = list(range(1, len(values) + 1))
    data = [line(x, values, name="cosine", color="$raw", text=text, mode="markers", marker=markers)]
    if critical is not None and x:
        data.append(level((0, x[-1] + 1), critical, name="1 % critical value", dash="dash"))
    total = pair.cosines.length if isinstance(pair.cosines, ArraySummary) else len(pair.cosines)
    title = first_of("principal angle", len(values), total)
    y = axis("cosine", range=[0, 1.04])
    return {"data": data, "layout": layout(x=axis(title, showgrid=False), y=y)}


def _forced(pair: PairRecord) -> int:
    """Number of the largest cosines that are 1 by dimension alone."""
    if pair.cosines_forced is not None:
        return pair.cosines_forced
    return forced_dimension(pair.effective_rank_write or 0, pair.effective_rank_read or 0, pair.d)


def _judged(
    rank: int, value: float, forced: int, critical: float | None, closed: str
) -> tuple[str, str]:
    """Colour and words of one cosine; one that dimensions force is never beyond chance."""
    if rank < forced:
        return "$chance", "1 by dimension alone: says nothing of the weights"
    if closed:
        return "$raw", closed
    if critical is None:
        return "$raw", "not tested"
    return ("$strong", "beyond chance") if value > critical else ("$raw", "within chance")


def profile_spec(pair: PairRecord) -> Spec:
    """Overlap ratio of the top-r spaces as r grows; chance is 1 at every r."""
    if not pair.profile:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    ranks = [rank for rank, _ in pair.profile]
    ratios = [ratio for _, ratio in pair.profile]
    text = [
        f"top {rank} directions<br>{number(ratio)} times chance"
        for rank, ratio in zip(ranks, ratios, strict=True)
    ]
    data = [
        level((ranks[0], ranks[-1]), 1.0, name="chance"),
        line(ranks, ratios, name="overlap ratio", color="$raw", text=text),
    ]
    x = axis("rank r of both spaces", showgrid=False, type="log", tickvals=_ticks(ranks[-1]))
    return {"data": data, "layout": layout(x=x, y=axis("overlap ratio", rangemode="tozero"))}


def _ticks(largest: int) -> list[int]:
    return [2**power for power in range(20) if 2**power <= largest]


def incidence_spec(pair: PairRecord) -> Spec:
    """The incidence surface S(i, j) = ‖P_{V_i} P_{U_j}‖² against its Haar value i·j/d.

    Colour is (S - ij/d) / (min(i, j) - ij/d): 0 at chance, 1 where one space holds the other,
    negative where they avoid each other.
    """
    surface = pair.incidence
    if surface is None:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    colours: list[list[float | None]] = []
    shown: list[list[list[float | None]]] = []
    for i, row in zip(surface.ranks_write, surface.surface, strict=True):
        colours.append([])
        shown.append([])
        for j, value in zip(surface.ranks_read, row, strict=True):
            chance = i * j / pair.d
            room = min(i, j) - chance
            # Below 1e-9 of the smaller rank there is no room: one space is all of R^d.
            empty = room <= 1e-9 * min(i, j)
            colours[-1].append(None if empty else rounded((value - chance) / room, 3))
            shown[-1].append([rounded(value, 4), rounded(chance, 4), rounded(value / chance, 3)])
    heat: Spec = {
        "type": "heatmap",
        "z": colours,
        "x": [str(j) for j in surface.ranks_read],
        "y": [str(i) for i in surface.ranks_write],
        "customdata": shown,
        "zmin": -1,
        "zmax": 1,
        "colorscale": diverging_scale(),
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": (
            "top %{y} written, top %{x} read<br>S = %{customdata[0]:.4g}<br>"
            "chance i·j/d = %{customdata[1]:.4g}<br>%{customdata[2]:.3g} times chance"
            "<extra></extra>"
        ),
        "colorbar": {
            "title": {"text": "excess", "font": {"size": 11, "color": "$muted"}},
            "tickvals": [-1, 0, 1],
            "ticktext": ["none shared", "chance", "contained"],
            "tickfont": {"size": 11, "color": "$muted"},
            "outlinewidth": 0,
            "thickness": 10,
            "len": 0.8,
        },
    }
    ticks = {"type": "category", "showgrid": False}
    return {
        "data": [heat],
        "layout": layout(
            x=axis("j strongest read directions", **ticks),
            y=axis("i strongest written directions", **ticks),
        ),
    }
