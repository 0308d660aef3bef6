"""The page of all heads against each other: one file that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flagscope.records import HeadOverlapsRecord, HeadSpaceRecord
from flagscope.report import wording
from flagscope.report.environment import assets, environment
from flagscope.report.heads.answer import basis_words, heads_answer, space_name
from flagscope.report.heads.maps import MOST_HEADS, space_map
from flagscope.report.palette import PALETTES
from flagscope.report.payload import packed_json, packed_plotly

_SCRIPTS = ("base", "route", "save", "figures", "print", "sortable", "table_csv", "heads_page")
_STYLES = ("comparison", "heads_page")


def render_heads(
    record: HeadOverlapsRecord, ratios: Sequence[np.ndarray], *, title: str | None = None
) -> str:
    """All heads against each other as one HTML page: the answer, a map of each space, tables.

    The page is self-contained, and its content security policy forbids any request.

    Parameters
    ----------
    record
        Everything but the tables.
    ratios
        For each of its spaces, Σcos² over chance of every two heads that were measured.
    title
        Of the page; the last part of the source by default.

    Returns
    -------
    str
        UTF-8 HTML: 1.5 MB for Plotly, and some 0.3 MB for each space of 400 heads, the most that
        are drawn one by one.
    """
    style, script = assets(_SCRIPTS, _STYLES)
    maps = [
        _map(record, index, space, table)
        for index, (space, table) in enumerate(zip(record.spaces, ratios, strict=True))
    ]
    drawn = any(one["spec"]["data"] for one in maps)
    return (
        environment()
        .get_template("heads_page.html.j2")
        .render(
            style=style,
            script=script,
            plotly=packed_plotly() if drawn else "",
            data=packed_json({"palettes": PALETTES, "maps": maps}) if drawn else "",
            record=record,
            title=title or record.source.rstrip("/").split("/")[-1] or record.source,
            answer=heads_answer(record),
            names=[space_name(record, space) for space in record.spaces],
            most_heads=MOST_HEADS,
            basis_words=basis_words,
            wording=wording,
        )
    )


def render_heads_summary(record: HeadOverlapsRecord) -> str:
    """The answer as a small HTML fragment without script, for notebooks."""
    answer = heads_answer(record)
    return environment().get_template("heads_summary.html.j2").render(answer=answer, record=record)


def _map(
    record: HeadOverlapsRecord, index: int, space: HeadSpaceRecord, ratios: np.ndarray
) -> dict[str, Any]:
    measured = [head for head in space.heads if head.rank]
    spec = space_map(measured, ratios)
    each = len(measured) <= MOST_HEADS
    for trace in spec["data"] if each else ():
        trace["meta"] = f"pair/{index}"  # what a cell opens, with its two heads
    name = space_name(record, space)
    return {
        "spec": spec,
        "title": f"{name[0].upper()}{name[1:]}",
        "alt": f"Overlap of {len(measured)} heads in {name}, in units of chance, by layer",
        "ranks": [head.rank for head in measured],
        "d": space.d,
        "basis": space.basis,
        # Spaces in which heads have the same numbers are looked up together.
        "group": f"{space.stack}/{space.attention}/{len(space.heads)}",
        "each": each,
    }
