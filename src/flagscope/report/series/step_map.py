"""The maps of a series: a cell for every pair, or for the heads of a layer, by kind and layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flagscope.observables import (
    HEAD_NUMBER,
    HEALTH_EXPLANATIONS,
    PAIR_OBSERVABLE,
    SERIES_EXPLANATIONS,
)
from flagscope.records import CurvePart
from flagscope.records.series import SeriesCurve
from flagscope.report.maps import MapScale, scale_limit
from flagscope.report.series.curve_table import CurveTable, row_title
from flagscope.report.spec import Spec, axis, layout, rounded

_LOG_ABOVE = 4.0  # a ratio gets a logarithmic axis from here, as over depth
_SCALES: dict[str, MapScale] = {
    "commutator_ratio": "ratio",
    "commutation_defect": "ratio",
    "overlap_ratio": "ratio",
    "gram_correlation": "correlation",
    "head_overlap_ratio": "ratio",
    "max_pair_ratio": "ratio",
}
_WORDS: dict[MapScale, str] = {
    "ratio": "Pale is 1, as by chance.",
    "correlation": "Pale is 0, as by chance.",
    "count": "Pale is 0.",
}


@dataclass(frozen=True)
class StepMap:
    """Where each pair stands.

    Parameters
    ----------
    rows, columns
        Their names.
    column_title
        ``"layer"``, or ``"place in order"`` where layers are not known.
    cells
        For each row and column the place of its pair in the table of curves; None without one.
    """

    rows: list[str]
    columns: list[str]
    column_title: str
    cells: list[list[int | None]]

    def payload(self) -> dict[str, Any]:
        """As in the page's data."""
        return asdict(self)


def step_maps(table: CurveTable) -> dict[CurvePart, StepMap]:
    """The map of pairs, that of heads and that of health, each if there is one.

    Health has the blocks with anything dead, and the network only if there is no such block.
    """
    health = [
        index for index in range(len(table.pairs))
        if any(table.part(field) == "health" and curves[index]
               for field, curves in table.numbers.items())
    ]  # fmt: skip
    blocks = [index for index in health if table.pairs[index].layer is not None]
    chosen: dict[CurvePart, list[int]] = {
        "pairs": [i for i, pair in enumerate(table.pairs) if pair.part == "pairs"],
        "heads": [i for i, pair in enumerate(table.pairs) if pair.part == "heads"],
        "health": blocks or health,
    }
    return {part: step_map(table.pairs, some) for part, some in chosen.items() if some}


def step_map(pairs: Sequence[SeriesCurve], chosen: Iterable[int] | None = None) -> StepMap:
    """A row for each kind and head, a column for each layer; never two pairs in a cell.

    Parameters
    ----------
    pairs
        One curve of each pair.
    chosen
        Places of those in the map; all by default.
    """
    chosen = list(range(len(pairs)) if chosen is None else chosen)
    by_layer = all(pairs[index].layer is not None for index in chosen)
    places: dict[tuple[str, int], int] = {}
    rows: dict[str, int] = {}  # the next free column, where layers are not known
    for index in chosen:
        pair = pairs[index]
        title, again = row_title(pair), 1
        column = rows.get(title, 0) if pair.layer is None or not by_layer else pair.layer
        while (title, column) in places:
            again += 1
            title = f"{row_title(pair)} ({again})"
        places[title, column] = index
        rows[title] = column + 1
    columns = sorted({column for _, column in places})
    return StepMap(
        rows=list(rows),
        columns=[str(column if by_layer else column + 1) for column in columns],
        column_title="layer" if by_layer else "place in order",
        cells=[[places.get((row, column)) for column in columns] for row in rows],
    )


def numbers_of(table: CurveTable) -> list[dict[str, Any]]:
    """Every observable: its words, the scale of its colours over all steps, its values."""
    known = [name for name in SERIES_EXPLANATIONS if name in table.numbers]
    return [_number(name, table) for name in dict.fromkeys([*known, *table.numbers])]


def _number(name: str, table: CurveTable) -> dict[str, Any]:
    curves = table.numbers[name]
    words = SERIES_EXPLANATIONS.get(name)
    scale = _SCALES.get(name, "count")
    drawn = [
        ([rounded(value) for value in some.values], [rounded(value) for value in some.low],
         [rounded(value) for value in some.high]) if some else None
        for some in curves
    ]  # fmt: skip
    held = [[[[value] for value in one[0] if value is not None] for one in drawn if one]]
    calibrated = any(one and any(end is not None for end in one[1]) for one in drawn)
    return {
        "field": name,
        "part": table.part(name),
        "title": words.title if words else name,
        "symbol": words.symbol if words else name,
        "words": " ".join(part for part in (words.short if words else "", _WORDS[scale]) if part),
        "calibrated": calibrated,
        "scale": scale,
        "limit": scale_limit(scale, [cells for row in held for cells in row]),
        "layout": _layout(name, words.symbol if words else name),
        "log_above": _LOG_ABOVE if scale == "ratio" and _logarithmic(name) else None,
        "counts": _counts(name),
        "labels": [curve.label if curve else None for curve in curves],
        "curves": drawn,
    }


def _logarithmic(name: str) -> bool:
    return name in PAIR_OBSERVABLE and PAIR_OBSERVABLE[name].logarithmic


def _counts(name: str) -> bool:
    if name in PAIR_OBSERVABLE:
        return PAIR_OBSERVABLE[name].counts_meetings
    return name in HEALTH_EXPLANATIONS or (name in HEAD_NUMBER and HEAD_NUMBER[name].counts)


def _layout(name: str, symbol: str) -> Spec:
    y = axis(symbol)
    shown = PAIR_OBSERVABLE.get(name)
    if _counts(name):
        y |= {"rangemode": "tozero", "tickformat": ",d"}  # its ticks depend on the pair
    elif shown is not None and shown.from_zero:
        y |= {"rangemode": "tozero"}
    return layout(x=axis(showgrid=False), y=y)
