"""Names of steps in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.series.step import Step
from flagscope.shortening import listed

_NAMED = 4


def named(steps: Sequence[Step]) -> str:
    """Names of steps, the first four of many.

    A single one stands as it is.
    """
    return listed([step.place.name for step in steps], _NAMED)
