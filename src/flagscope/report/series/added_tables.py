"""Rows of the page's tables of onsets, jumps, ways and adapters."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records.series import SeriesRecord, StepRecord
from flagscope.records.series_adapter import AdapterCurves
from flagscope.records.series_changes import ChangePoint
from flagscope.report.series.adapters import REASONS
from flagscope.report.series.motion import WholeWay, whole_way
from flagscope.report.series.onsets import OnsetSummary, onset_summaries
from flagscope.report.wording import ranges

_MOST_STEPS = 24  # columns of the table of modules


def onset_rows(record: SeriesRecord) -> list[OnsetSummary]:
    """Kinds of pairs and tests that could be looked at."""
    return [one for one in onset_summaries(record) if one.pairs]


def change_points(record: SeriesRecord) -> list[tuple[str | None, ChangePoint]]:
    """Jumps with their run."""
    return [(found.run, point) for found in record.change_points for point in found.points]


def ways(record: SeriesRecord) -> list[tuple[str | None, WholeWay]]:
    """The way of all maps together, for each run that has one."""
    found = []
    for run in dict.fromkeys(motion.run for motion in record.motion):
        way = whole_way(record, run)
        if way is not None:
            found.append((run, way))
    return found


def shown_steps(steps: Sequence[StepRecord]) -> list[int]:
    """Places of the columns of a table: all, or 24 from the first to the last, evenly apart.

    Examples
    --------
    >>> steps = [StepRecord(name=f"{n}", source="", number=n, tensors=1, bytes_total=1,
    ...                     bytes_sampled=1) for n in range(93)]
    >>> shown_steps(steps)[:3], shown_steps(steps)[-1], len(shown_steps(steps))
    ([0, 4, 8], 92, 24)
    """
    count = len(steps)
    if count <= _MOST_STEPS:
        return list(range(count))
    return [place * (count - 1) // (_MOST_STEPS - 1) for place in range(_MOST_STEPS)]


def step_labels(steps: Sequence[StepRecord], places: Sequence[int]) -> list[str]:
    """Headings of these steps: their numbers, or their names."""
    return [
        steps[place].name if steps[place].number is None else f"{steps[place].number:,}"
        for place in places
    ]


def dead_in_words(curves: AdapterCurves) -> str:
    """Directions of a module that are dead at the end."""
    return "; ".join(
        f"{ranges(dead.directions)}, from {dead.since} on: {REASONS[dead.kind]}"
        for dead in curves.dead
    )
