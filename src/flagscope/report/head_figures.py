"""Figures of one head group: who overlaps whom, and the directions that many share."""

from __future__ import annotations

import math

from flagscope.records import ArraySummary, HeadRecord
from flagscope.report.ratio_scale import ratio_heat, ratio_limit
from flagscope.report.spec import Spec, axis, first_of, layout, level, line
from flagscope.report.targets import group_target
from flagscope.report.wording import joined, number

_MARKED = 16  # heads of a shared direction that a click marks
_SHOWN = 64  # eigenvalues drawn, unless more lie above the threshold


def head_matrix_spec(group: HeadRecord, *, limit: float | None = None) -> Spec:
    """Overlap of every two heads in units of chance, clusters side by side and outlined.

    ``limit`` is the end of the colour scale (1/limit to limit, even in the logarithm); the
    diagonal, which is d/r by definition, is left out.
    """
    if group.pairwise is None:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    order = group.order or list(range(len(group.pairwise)))
    limit = limit or matrix_limit(group)
    names = [str(head) for head in order]
    ratios = [[None if i == j else group.pairwise[i][j] for j in order] for i in order]
    gap = 1 if len(order) <= 24 else 0
    heat = ratio_heat(names, names, ratios, limit, gap=gap, hover="heads %{y} and %{x}")
    # A cell opens its two heads: the page puts their names behind this.
    heat["meta"] = group_target(group)
    ticks = {"type": "category", "showgrid": False, "ticks": "", "nticks": 16}
    side = axis("head", **ticks, autorange="reversed", scaleanchor="x", constrain="domain")
    return {
        "data": [heat],
        "layout": layout(
            x=axis("head", **ticks, constrain="domain"), y=side, shapes=_outlines(group, order)
        ),
    }


def matrix_limit(group: HeadRecord) -> float:
    """The end of a colour scale that holds the group's largest ratio, at least 2."""
    return ratio_limit((group.max_pair_ratio or 1.0, group.min_pair_ratio or 1.0))


def _outlines(group: HeadRecord, order: list[int]) -> list[Spec]:
    """A box around each cluster whose heads stand together in the order."""
    shapes = []
    for cluster in group.clusters or []:
        places = sorted(order.index(head) for head in cluster if head in order)
        if len(places) > 1 and places[-1] - places[0] == len(places) - 1:
            ends = (places[0] - 0.5, places[-1] + 0.5)
            shapes.append(
                {
                    "type": "rect",
                    "x0": ends[0], "x1": ends[1], "y0": ends[0], "y1": ends[1],
                    "line": {"color": "$ink", "width": 2},
                    "fillcolor": "rgba(0,0,0,0)",
                }
            )  # fmt: skip
    return shapes


def shared_spectrum_spec(group: HeadRecord) -> Spec:
    """Eigenvalues of the sum of the heads' projectors against the 1 % level for random heads."""
    values = group.spectrum
    if values is None:
        return {"data": [], "layout": layout(x=axis(), y=axis())}
    shown = values.top if isinstance(values, ArraySummary) else list(values)
    threshold = group.shared_threshold if group.shared_threshold is not None else math.inf
    above = sum(value > threshold for value in shown)
    shown = shown[: max(_SHOWN, above + 8)]
    x = list(range(1, len(shown) + 1))
    text = [_direction(group, rank, value, above) for rank, value in enumerate(shown)]
    colours = ["$strong" if value > threshold else "$chance" for value in shown]
    style = {"mode": "markers", "marker": {"color": colours, "size": 7}}
    style["customdata"] = [
        group_target(group, group.shared[rank].heads[:_MARKED])
        if rank < min(above, len(group.shared))
        else None
        for rank in range(len(shown))
    ]
    data = [line(x, shown, name="eigenvalue", color="$raw", text=text, **style)]
    if x and group.shared_threshold is not None:
        data.append(
            level((0, x[-1] + 1), threshold, name="1 % level for random heads", dash="dash")
        )
    total = values.length if isinstance(values, ArraySummary) else len(values)
    title = first_of("direction", len(shown), total)
    if len(shown) < (group.shared_directions or 0):  # those above the level go on
        title += f"; {group.shared_directions:,} lie above the level"
    y = axis("eigenvalue (heads that share it)", rangemode="tozero")
    return {"data": data, "layout": layout(x=axis(title, showgrid=False), y=y)}


def _direction(group: HeadRecord, rank: int, value: float, above: int) -> str:
    text = f"direction {rank + 1}: {number(value)}<br>"
    if rank >= above:
        return text + "within chance"
    text += f"above the 1 % level {number(group.shared_threshold)}"
    if rank < len(group.shared) and group.shared[rank].heads:
        text += f"<br>heads {joined(group.shared[rank].heads, limit=16)}"
    return text
