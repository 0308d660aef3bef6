"""Curves of a series by pair and number, and of very many pairs by kind and layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flagscope.records import CurvePart
from flagscope.records.series import SeriesCurve
from flagscope.report.routes import reader_title, route_named, writer_title
from flagscope.report.series.text import median_of_most
from flagscope.report.wording import CURVE_WORDS, counted

MOST_PLACES = 20_000  # pairs × steps that a page has one by one: some 1 MB of it
_LAYER = re.compile(r"(?<![\w])layer\.\d+\.?")


@dataclass(frozen=True)
class CurveTable:
    """Everything that a page draws of the curves of a series.

    Parameters
    ----------
    pairs
        One curve of each pair, of each layer's heads in one space and of what else has a curve, for
        its name, kind and layer.
    numbers
        For each observable the curve of each of them, None where it has none.
    grouped
        Pairs that the medians stand for; 0 where each pair has its own curves.
    """

    pairs: tuple[SeriesCurve, ...]
    numbers: dict[str, tuple[SeriesCurve | None, ...]]
    grouped: int = 0

    @property
    def pairs_alone(self) -> bool:
        """Whether all curves are of pairs."""
        return all(pair.part == "pairs" for pair in self.pairs)

    def part(self, field: str) -> CurvePart:
        """The part of a scan that a number is from."""
        return next(curve.part for curve in self.numbers[field] if curve is not None)


def curve_table(curves: Sequence[SeriesCurve], *, most: int = MOST_PLACES) -> CurveTable:
    """The curves of each pair; above ``most`` pairs × steps, medians of a kind in a layer.

    Those of heads and of health are never put together.

    A median is that of the pairs that have the number, and missing where fewer than half do. What
    chance gives it is the median of what chance gives each pair, and so wider than its own.
    """
    table = _by_pair(curves)
    places = sum(len(pair.values) for pair in table.pairs)
    if places <= most:
        return table
    others = [curve for curve in curves if curve.part != "pairs"]
    medians = _by_pair([*_medians([one for one in curves if one.part == "pairs"]), *others])
    grouped = sum(pair.part == "pairs" for pair in table.pairs)
    return CurveTable(medians.pairs, medians.numbers, grouped=grouped)


def _by_pair(curves: Sequence[SeriesCurve]) -> CurveTable:
    pairs: dict[str, SeriesCurve] = {}
    known: dict[str, dict[str, SeriesCurve]] = {}
    for curve in curves:
        pairs.setdefault(curve.pair, curve)
        known.setdefault(curve.observable, {})[curve.pair] = curve
    numbers = {field: tuple(some.get(name) for name in pairs) for field, some in known.items()}
    return CurveTable(tuple(pairs.values()), numbers)


def _medians(curves: Sequence[SeriesCurve]) -> list[SeriesCurve]:
    groups: dict[tuple[str, str, int | None, str], list[SeriesCurve]] = {}
    for curve in curves:
        stack = curve.pair.partition("layer.")[0] if "layer." in curve.pair else ""
        key = (stack, curve.kind, curve.layer, curve.observable)
        groups.setdefault(key, []).append(curve)
    found = []
    for (stack, kind, layer, field), some in groups.items():
        alike = len({curve.label for curve in some}) == 1
        place = "" if layer is None else f"layer.{layer}."
        name = f"{stack}{place}{kind}, median of {counted(len(some), 'pair')}"
        found.append(
            SeriesCurve(
                pair=some[0].pair if len(some) == 1 else name,
                kind=kind,
                layer=layer,
                observable=field,
                label=some[0].label if alike else None,
                values=_over(curve.values for curve in some),
                low=_over(curve.low for curve in some),
                high=_over(curve.high for curve in some),
            )
        )
    return found


def _over(lists: Iterable[Sequence[float | None]]) -> list[float | None]:
    return [median_of_most(step) for step in zip(*lists, strict=True)]


def row_title(pair: SeriesCurve) -> str:
    """What a pair is, whatever its layer: the row of a map in which it stands.

    Examples
    --------
    >>> def titled(pair, kind, layer):
    ...     return row_title(SeriesCurve(pair=pair, kind=kind, layer=layer, observable="imbalance",
    ...                                  label=None, values=[], low=[], high=[]))
    >>> titled("layer.0.head.3.qk", "qk", 0), titled("layer.1.mlp", "mlp", 1)
    ('Query–key, head 3', 'MLP')
    >>> titled("encoder.layer.2.cross.head.1.ov", "ov", 2), titled("0-2", "sequential", None)
    ('Value–output, encoder cross head 1', 'Sequential')
    >>> titled("layer.1.mlp.down-layer.3.q", "residual", 3)
    'MLP output to query, 2 blocks on'
    >>> row_title(SeriesCurve(part="heads", pair="decoder.layer.0.cross.heads.k", kind="k", layer=0,
    ...                       observable="max_pair_ratio", label=None, values=[], low=[], high=[]))
    'Key heads, decoder cross'
    """
    way = route_named(pair.pair) if pair.kind == "residual" else None
    if way is not None:
        return f"{writer_title(way.writer)} to {reader_title(way.reader, way.distance)}"
    words = CURVE_WORDS.get(pair.kind, pair.kind)
    if pair.layer is None:
        return words
    name = re.sub(r", median of .*$", "", pair.pair)
    rest = _LAYER.sub("", name).removesuffix(pair.kind).strip(".")
    if pair.part == "heads":
        rest = rest.removesuffix("heads").strip(".")
    rest = rest.replace(".", " ")
    return f"{words}, {rest}" if rest else words
