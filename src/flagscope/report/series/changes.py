"""Jumps of curves in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from flagscope.records.series_changes import ChangePoint, ChangePoints
from flagscope.shortening import listed

_NAMED = 4


def change_points_in_words(found: ChangePoints) -> Iterator[str]:
    """A sentence for each two checkpoints between which curves jump, and what was not looked at."""
    run = f"{found.run}: " if found.run else ""
    between: dict[tuple[int, int], list[ChangePoint]] = defaultdict(list)
    for point in found.points:
        between[point.after_number, point.by_number].append(point)
    for (after, by), points in between.items():
        names = listed([f"{point.observable} of {point.pair}" for point in points], _NAMED)
        verb = "jumps" if len(points) == 1 else "jump"
        yield (
            f"{run}Between {after:,} and {by:,}, {len(points):,} of {found.curves:,} curves {verb} "
            f"out of their course: {names}."
        )
    if found.tests and not found.points:
        yield f"{run}No jump of any of {found.curves:,} curves."
    yield f"{run}{'Jumps were not looked for at: ' if found.tests else ''}" + (
        found.not_looked_at[:1].lower() + found.not_looked_at[1:]
        if found.tests
        else found.not_looked_at
    )
