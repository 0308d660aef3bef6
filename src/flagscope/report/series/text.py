"""What is said of a series in a line, and of its curves in a few."""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import NamedTuple

from flagscope.records.series import SeriesCurve, SeriesRecord


class CurveSummary(NamedTuple):
    """One number of one kind of pair: medians at the first and the last step that have it."""

    kind: str
    observable: str
    pairs: int
    first: float
    last: float
    chance: float | None
    label: str | None


def series_headline(record: SeriesRecord) -> str:
    """How many checkpoints, and what is wrong with them.

    Examples
    --------
    >>> from flagscope.records.series import Integrity
    >>> empty = Integrity(
    ...     faults=[], tensors_compared=0, samples=0, frozen=[], frozen_total=0, path_length=None,
    ...     displacement=None, not_looked_at=[],
    ... )
    >>> series_headline(
    ...     SeriesRecord(sources=[], integrity=empty, steps=[], curves=[], notes=[])
    ... )
    '0 checkpoints; no fault found'
    """
    count, faults = len(record.steps), len(record.integrity.faults)
    found = f"{faults:,} fault{'' if faults == 1 else 's'}" if faults else "no fault found"
    return f"{count:,} checkpoint{'' if count == 1 else 's'}; {found}"


def curve_summaries(record: SeriesRecord) -> list[CurveSummary]:
    """Medians over the pairs of each kind, at the first and the last step, by kind and number."""
    groups: dict[tuple[str, str], list[SeriesCurve]] = defaultdict(list)
    for curve in record.curves:
        groups[curve.kind, curve.observable].append(curve)
    found = []
    for (kind, observable), curves in groups.items():
        ends = [_ends(curve) for curve in curves]
        known = [one for one in ends if one is not None]
        if not known:
            continue
        chances = [
            (low + high) / 2
            for curve in curves
            for low, high in [(curve.low[-1], curve.high[-1])]
            if low is not None and high is not None
        ]
        labels = {curve.label for curve in curves}
        found.append(
            CurveSummary(
                kind=kind,
                observable=observable,
                pairs=len(known),
                first=median(first for first, _ in known),
                last=median(last for _, last in known),
                chance=median(chances) if chances else None,
                label=labels.pop() if len(labels) == 1 else None,
            )
        )
    return found


def _ends(curve: SeriesCurve) -> tuple[float, float] | None:
    values = [value for value in curve.values if value is not None]
    return (values[0], values[-1]) if values else None
