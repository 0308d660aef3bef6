"""What is said of a series in a line, and of its curves in a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from flagscope.observables import HEAD_NUMBER
from flagscope.records import CurvePart
from flagscope.records.series import NETWORK, SeriesCurve, SeriesRecord
from flagscope.report.wording import measured, number


class CurveSummary(NamedTuple):
    """One number of one kind of pair, or of heads: medians at the first and last step of each run.

    None where fewer than half of the pairs have it there. `low` and `high` are medians of the ends
    of what chance gives at the last step, None where there is no number.
    """

    part: CurvePart
    kind: str
    observable: str
    pairs: int
    first: float | None
    last: float | None
    low: float | None
    high: float | None
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
    runs = "" if record.runs is None else f" of {len(record.runs.runs):,} runs"
    return f"{count:,} checkpoint{'' if count == 1 else 's'}{runs}; {found}"


def curve_summaries(record: SeriesRecord) -> list[CurveSummary]:
    """Medians over the pairs of each kind, at the first and the last step, by kind and number.

    Those of heads are over layers. Health has the counts of the whole network alone.
    """
    groups: dict[tuple[CurvePart, str, str], list[SeriesCurve]] = defaultdict(list)
    for curve in record.curves:
        if curve.part != "health" or curve.kind == NETWORK:
            groups[curve.part, curve.kind, curve.observable].append(curve)
    found = []
    ends = _ends(record)
    for (part, kind, observable), curves in groups.items():
        labels = {curve.label for curve in curves}
        last = median_of_most([curve.values[at] for curve in curves for _, at in ends])
        calibrated = [
            (curve.low[at], curve.high[at])
            for curve in curves
            for _, at in ends
            if last is not None and curve.values[at] is not None
        ]
        found.append(
            CurveSummary(
                part=part,
                kind=kind,
                observable=observable,
                pairs=len(curves),
                first=median_of_most([curve.values[at] for curve in curves for at, _ in ends]),
                last=last,
                low=median_of_most([low for low, _ in calibrated]),
                high=median_of_most([high for _, high in calibrated]),
                label=labels.pop() if len(labels) == 1 else None,
            )
        )
    return found


def value_in_words(summary: CurveSummary, value: float | None) -> str:
    """A value of a summary: counts of heads and of health are whole, or medians of such.

    Examples
    --------
    >>> whole = CurveSummary("heads", "k", "distinct_heads", 4, 6.0, 5.5, 6.0, 6.0, "functional")
    >>> value_in_words(whole, whole.first), value_in_words(whole, whole.last)
    ('6', '5.50')
    """
    known = HEAD_NUMBER.get(summary.observable)
    counts = summary.part == "health" or (known is not None and known.counts)
    return number(value) if counts else measured(value)


def _ends(record: SeriesRecord) -> list[tuple[int, int]]:
    """Places of the first and the last step of each run."""
    places: dict[str | None, list[int]] = defaultdict(list)
    for place, step in enumerate(record.steps):
        places[step.run].append(place)
    return [(inside[0], inside[-1]) for inside in places.values()]


def median_of_most(values: Sequence[float | None]) -> float | None:
    """Median of the values that there are; None if there are fewer than half.

    Examples
    --------
    >>> median_of_most([0.5, None, 0.7]), median_of_most([0.5, None, None])
    (0.6, None)
    """
    missing = sum(value is None for value in values)
    return None if 2 * missing > len(values) else median_of_known(values)


def median_of_known(values: Sequence[float | None]) -> float | None:
    """Median of the values that there are; None if there are none.

    Examples
    --------
    >>> median_of_known([0.5, None, None]), median_of_known([None])
    (0.5, None)
    """
    known = [value for value in values if value is not None]
    return median(known) if known else None
