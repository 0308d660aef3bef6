"""Where a change lies, in words: which layers and which roles hold most of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from flagscope.records.comparison import ChangeRecord, LayerChange
from flagscope.report.wording import joined, percent, ranges


class HasRelative(Protocol):
    """A record with a change over either side's norm."""

    @property
    def relative_a(self) -> float | None:
        """‖Δ‖ over the norm of the first side."""
        ...

    @property
    def relative_b(self) -> float | None:
        """‖Δ‖ over the norm of the second."""
        ...


_MOST = 0.5  # of the squared change: what is named first holds at least this much
_FEW = 0.4  # of the layers: more of them are not worth naming


OF_BOTH = "of both norms (geometric mean)"
"""What shares of a norm are of, wherever no side is named."""


def relative_change(row: HasRelative) -> float | None:
    """A change over the geometric mean of both sides' norms: the same from either side."""
    return over_both(row.relative_a, row.relative_b)


def over_both(relative_a: float | None, relative_b: float | None) -> float | None:
    """A change over the geometric mean of two norms, of what it is over each."""
    if relative_a is None or relative_b is None:
        return None
    return math.sqrt(relative_a * relative_b)


def place_of(row: LayerChange) -> str:
    """Which maps a row is about: stack, layer and role, or one map by its name."""
    if row.map is not None:
        return row.map
    return f"{row.stack} {'' if row.layer is None else f'layer {row.layer} '}{row.role}"


def where_moved(change: ChangeRecord) -> str:
    """The layers and roles that hold most of the squared change; "" if it is spread evenly.

    Examples
    --------
    >>> from flagscope.records.comparison import LayerChange
    >>> def row(layer, change):
    ...     return LayerChange(stack="decoder", layer=layer, role="q", maps=1, identical=0,
    ...         within_rounding=0, change=change, relative_a=change, relative_b=change)
    >>> _by_layer([row(0, 1.0), row(1, 3.0), row(2, 1.0)])
    'layer 1 (82 % of the squared change)'
    """
    words = [_by_layer(change.layers) or _by_map(change.layers), _by_role(change.layers)]
    return joined(word for word in words if word)


def _by_layer(rows: Iterable[object]) -> str:
    squares = _squares(rows, "layer")
    total = sum(squares.values())
    if total == 0 or len(squares) < 3 or None in squares:
        return ""
    chosen: list[int] = []
    held = 0.0
    for layer, square in sorted(squares.items(), key=lambda entry: -entry[1]):
        chosen.append(int(str(layer)))
        held += square
        if held >= _MOST * total:
            break
    if len(chosen) > _FEW * len(squares):
        return ""
    noun = "layer" if len(chosen) == 1 else "layers"
    return f"{noun} {ranges(sorted(chosen))} ({percent(held / total, 2)} of the squared change)"


def _by_map(rows: Sequence[LayerChange]) -> str:
    """The map that holds most, where maps stand by themselves."""
    if len(rows) < 3 or any(row.map is None for row in rows):
        return ""
    squares = _squares(rows, "map")
    total = sum(squares.values())
    name, square = max(squares.items(), key=lambda entry: entry[1])
    if total == 0 or square < _MOST * total:
        return ""
    return f"{name} ({percent(square / total, 2)} of the squared change)"


def _by_role(rows: Iterable[object]) -> str:
    squares = _squares(rows, "role")
    total = sum(squares.values())
    if total == 0 or len(squares) < 2:
        return ""
    role, square = max(squares.items(), key=lambda entry: entry[1])
    if square < _MOST * total:
        return ""
    return f"the {role} maps ({percent(square / total, 2)})"


def _squares(rows: Iterable[object], field: str) -> dict[object, float]:
    squares: dict[object, float] = {}
    for row in rows:
        size = getattr(row, "change", None)
        key = getattr(row, field)
        squares[key] = squares.get(key, 0.0) + (size or 0.0) ** 2
    return squares
