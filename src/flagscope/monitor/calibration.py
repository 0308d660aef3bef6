"""The one calibration: how long steps take, and how long each part of a measurement."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from flagscope.api.inspection import inspect
from flagscope.monitor.measurement import measured
from flagscope.monitor.schedule import Part

# The first steps compile, allocate and fill caches.
_UNTIMED, _TIMED = 5, 20


class StepTimer:
    """Times the steps of a training until enough of them are known."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def tick(self, now: float) -> float | None:
        """Enter the end of a step; gives the median seconds of a step once enough were seen."""
        self._times.append(now)
        if len(self._times) <= _UNTIMED + _TIMED:
            return None
        times = self._times[_UNTIMED:]
        return statistics.median(b - a for a, b in pairwise(times))


def parts_in(state: Mapping[str, Any], whole: Part, settings: Mapping[str, Any]) -> list[Part]:
    """The parts of what is to be measured: one for each kind of pair, the heads, the stream.

    Health is quick and goes with each of them.
    """
    known = {name: value for name, value in settings.items() if name != "device"}
    tasks = inspect(state, only=whole.only, kinds=whole.kinds, **known).tasks
    health = ("health",) if "health" in whole.only else ()
    kinds = {group.kind for task in tasks for group in task.pairs}
    parts = [Part(kind, (*health, "pairs"), (kind,)) for kind in sorted(kinds - {"residual"})]
    if any(task.heads for task in tasks):
        parts.append(Part("heads", (*health, "heads"), whole.kinds))
    if "residual" in kinds or any(task.links for task in tasks):
        parts.append(Part("residual", (*health, "residual"), whole.kinds))
    return parts or [whole]


def part_seconds(
    state: Mapping[str, Any], parts: Sequence[Part], settings: Mapping[str, Any]
) -> list[float]:
    """Seconds of one measurement of each part.

    The first measurement of a process imports what the later ones use: the health of the weights,
    which goes with all parts, is measured once before.
    """
    first = Part("health", ("health",), None)
    times = []
    for part in [first, *parts]:
        nothing = frozenset[str]()
        measurement = measured(state, step=0, part=part, trainable=nothing, settings=settings)
        times.append(measurement.seconds)
    return times[1:]
