"""The page of a comparison: one self-contained HTML file that loads nothing from anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flagscope.observables import EXPLANATIONS
from flagscope.records.comparison import (
    KEPT_SINGULAR_VALUES,
    ChangeRecord,
    Comparison,
    LayerChange,
    ProductChange,
    TensorContent,
)
from flagscope.report import wording
from flagscope.report.comparison.whereabouts import OF_BOTH, HasRelative, over_both, relative_change
from flagscope.report.environment import assets, environment
from flagscope.report.payload import packed_json

_SCRIPTS = ("base", "sortable", "comparison")
_STYLES = ("comparison",)
_TENSORS = 500  # rows of the table of tensors that are not the same; the JSON has all
_DECADES = 4.0  # what is this many decades below the largest is drawn as the faintest
_FAINTEST = 0.12  # shade of the least that moved, apart from what did not


@dataclass(frozen=True)
class Cell:
    """One cell of a grid.

    Parameters
    ----------
    shade
        How far it moved, 0 to 1, on the logarithmic scale of its grid.
    text, key
        What it says, and what it opens.
    """

    shade: float
    text: str
    key: str


@dataclass(frozen=True)
class Grid:
    """Rows and columns of cells; None where there is nothing.

    Parameters
    ----------
    title, columns, rows
        Its words and cells.
    least, most
        What the faintest and the fullest shade stand for.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    least: str
    most: str


def render_comparison(comparison: Comparison, *, title: str | None = None) -> str:
    """A comparison as one HTML page: verdict, findings, maps of what moved, tables.

    The page is self-contained, and its content security policy forbids any request.

    Parameters
    ----------
    comparison
        Its record.
    title
        Heading of the page; the names of both sources if None.

    Returns
    -------
    str
        UTF-8 HTML.
    """
    style, script = assets(_SCRIPTS, _STYLES)
    sources = (comparison.a.source, comparison.b.source)
    names = (source.rstrip("/").split("/")[-1] for source in sources)
    change = comparison.change
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            style=style,
            script=script,
            title=title or " and ".join(sources),
            heading=title or " and ".join(names),
            comparison=comparison,
            verdict=comparison.verdict,
            sides=_sides(comparison),
            layer_grids=layer_grids(change) if change else [],
            head_grids=head_grids(change) if change else [],
            head_data=packed_json(_heads(comparison)),
            odd_tensors=_odd_tensors(comparison),
            shown_tensors=_TENSORS,
            kept=KEPT_SINGULAR_VALUES,
            wording=wording,
            percent=wording.percent,
            relative=relative_change,
            over_both=over_both,
            of_both=OF_BOTH,
            explanations=EXPLANATIONS,
        )
    )


def render_comparison_summary(comparison: Comparison) -> str:
    """The verdict and the findings as a small HTML fragment without script, for notebooks."""
    return (
        environment().get_template("comparison_summary.html.j2").render(
            findings=comparison.findings, verdict=comparison.verdict
        )
    )  # fmt: skip


def layer_grids(change: ChangeRecord) -> list[Grid]:
    """For each stack a grid of roles and layers, shaded by how far the maps moved."""
    grids = []
    for stack in dict.fromkeys(row.stack for row in change.layers):
        rows = [row for row in change.layers if row.stack == stack and row.layer is not None]
        alone = [row for row in change.layers if row.stack == stack and row.map is not None]
        if alone:
            scale = _scale(alone)
            cells = tuple((row.map or "", (_layer_cell(row, scale),)) for row in alone)
            grids.append(Grid(stack, ("change",), cells, *map(wording.percent, scale)))
        layers = sorted({row.layer for row in rows if row.layer is not None})
        if not layers:
            continue
        roles = list(dict.fromkeys(row.role for row in rows))
        scale = _scale(rows)
        known = {(row.role, row.layer): row for row in rows}
        lines = tuple(
            (role, tuple(_layer_cell(known.get((role, layer)), scale) for layer in layers))
            for role in roles
        )
        grids.append(Grid(stack, tuple(map(str, layers)), lines, *map(wording.percent, scale)))
    return grids


def _layer_cell(row: LayerChange | None, scale: tuple[float, float]) -> Cell | None:
    if row is None:
        return None
    moved = relative_change(row)
    words = "equal" if moved is None and row.identical else wording.percent(moved)
    return Cell(
        _shade(moved, scale),
        f"{row.map or f'{row.role}, layer {row.layer}'}: {words} {OF_BOTH}",
        row.map or f"{row.stack}/{row.layer}/{row.role}",
    )


def head_grids(change: ChangeRecord) -> list[Grid]:
    """For each kind of circuit a grid of layers and heads, shaded by how far the product moved."""
    grids = []
    for kind, title in (("qk", "QK: what heads attend to"), ("ov", "OV: what heads write")):
        rows = [p for p in change.products if p.kind == kind and p.head is not None]
        for stack in dict.fromkeys(row.stack for row in rows):
            some = [row for row in rows if row.stack == stack]
            places = dict.fromkeys((row.attention, row.layer) for row in some)
            heads = sorted({row.head for row in some if row.head is not None})
            scale = _scale(some)
            known = {(row.attention, row.layer, row.head): row for row in some}
            lines = tuple(
                (
                    f"{layer}" if attention in (None, "self") else f"{layer} {attention}",
                    tuple(_head_cell(known.get((attention, layer, head)), scale)
                          for head in heads),
                )
                for attention, layer in places
            )  # fmt: skip
            several = len({row.stack for row in rows}) > 1
            name = f"{title}, {stack}" if several else title
            grids.append(Grid(name, tuple(map(str, heads)), lines, *map(wording.percent, scale)))
    return grids


def _head_cell(row: ProductChange | None, scale: tuple[float, float]) -> Cell | None:
    if row is None:
        return None
    moved = relative_change(row)
    return Cell(_shade(moved, scale), f"{row.name}: {wording.percent(moved)} {OF_BOTH}", row.name)


def _scale(rows: Iterable[HasRelative]) -> tuple[float, float]:
    """The least and the largest change that a grid's shades stand for."""
    moved = [change for row in rows if (change := relative_change(row))]
    if not moved:
        return 0.0, 0.0
    largest = max(moved)
    return max(min(moved), largest / 10**_DECADES), largest


def _shade(moved: float | None, scale: tuple[float, float]) -> float:
    """Shade of a change: 0 for none, logarithmic above that."""
    least, largest = scale
    if not moved or not largest:
        return 0.0
    along = 1.0 if largest == least else math.log(moved / least) / math.log(largest / least)
    return round(_FAINTEST + (1 - _FAINTEST) * max(0.0, along), 3)


def _sides(comparison: Comparison) -> list[tuple[str, Any]]:
    sides: list[tuple[str, Any]] = [("A", comparison.a), ("B", comparison.b)]
    if comparison.adapter is not None:
        sides.append(("Adapter", comparison.adapter))
    sides += [(f"Parent {at}", side) for at, side in enumerate(comparison.parents, 1)]
    return sides


def _odd_tensors(comparison: Comparison) -> list[TensorContent]:
    """Tensors that are not the same, those furthest apart first."""
    if comparison.content is None:
        return []
    odd = [t for t in comparison.content.tensors if t.content != "identical"]
    return sorted(odd, key=lambda tensor: -_apart(tensor))


def _apart(tensor: TensorContent) -> float:
    difference = tensor.difference
    return 0.0 if difference is None else difference.relative_a or 0.0


def _heads(comparison: Comparison) -> dict[str, Any]:
    """What the panel of one circuit shows, by its name."""
    moved = {} if comparison.change is None else {p.name: p for p in comparison.change.products}
    names = dict.fromkeys([*(head.name for head in comparison.heads), *moved])
    sides = {head.name: head for head in comparison.heads}
    panels = {}
    for name in names:
        product, both = moved.get(name), sides.get(name)
        panels[name] = {
            "change": [] if product is None else _change_rows(product),
            "values": [] if both is None else _value_rows(both.values_a, both.values_b),
            "spectrum": [
                [] if both is None else _rounded(both.product_spectrum_a),
                [] if both is None else _rounded(both.product_spectrum_b),
            ],
        }
    return panels


def _change_rows(product: ProductChange) -> list[list[str]]:
    number = wording.number
    return [
        ["Change of the product over both norms (geometric mean)",
         wording.percent(relative_change(product))],
        ["What storage rounding alone gives", wording.percent(product.floor)],
        ["The same of the two maps, which a change of basis moves too",
         wording.percent(over_both(product.raw_relative_a, product.raw_relative_b))],
        ["Norm in A, in B", f"{number(product.norm_a)}, {number(product.norm_b)}"],
        ["Status", product.status],
    ]  # fmt: skip


def _value_rows(
    a: dict[str, float | None], b: dict[str, float | None]
) -> list[tuple[str, str, str]]:
    names: Iterable[str] = dict.fromkeys([*a, *b])
    return [
        (
            EXPLANATIONS[name].title if name in EXPLANATIONS else name,
            wording.number(a.get(name)),
            wording.number(b.get(name)),
        )
        for name in names
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
