"""Steps of one training or of several on the horizontal axis of a figure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flagscope.records.series import SeriesRecord, StepRecord
from flagscope.report.series.step_axis import StepAxis, step_axes


@dataclass(frozen=True)
class RunSteps:
    """The steps of one training, as a page draws them.

    Parameters
    ----------
    name
        None for a single training.
    places
        Of its steps in the series.
    axes
        Where its steps stand. Where steps have numbers, axes of all runs are the same, so that
        their curves can be laid over each other.
    numbered
        Of each step its place among all numbers of the series; None without numbers.
    """

    name: str | None
    places: list[int]
    axes: list[StepAxis]
    numbered: list[int] | None


def runs_of_steps(record: SeriesRecord) -> tuple[list[RunSteps], list[StepAxis]]:
    """The runs of a series, and the axes of the numbers that any of them has."""
    runs: dict[str | None, list[int]] = {}
    for place, step in enumerate(record.steps):
        runs.setdefault(step.run, []).append(place)
    if len(runs) < 2:
        places = list(range(len(record.steps)))
        axes = step_axes(record.steps)
        return [RunSteps(next(iter(runs), None), places, axes, places)], axes
    own = {name: [record.steps[place] for place in places] for name, places in runs.items()}
    every = {step.number: step for step in record.steps}
    numbers = sorted(number for number in every if number is not None)
    shared = step_axes([every[number] for number in numbers])
    if not all(map(_sound, own.values())) or len({step.unit for step in record.steps}) > 1:
        return [RunSteps(n, runs[n], step_axes(own[n]), None) for n in runs], shared
    rank = {number: place for place, number in enumerate(numbers)}
    found = []
    for name, places in runs.items():
        numbered = [rank[step.number] for step in own[name] if step.number is not None]
        axes = [replace(axis, x=[axis.x[place] for place in numbered]) for axis in shared]
        found.append(RunSteps(name, places, axes, numbered))
    return found, shared


def _sound(steps: Sequence[StepRecord]) -> bool:
    numbers = [step.number for step in steps]
    return all(
        a is not None and b is not None and a < b for a, b in itertools.pairwise([-1, *numbers])
    )
