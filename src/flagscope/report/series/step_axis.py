"""Where steps stand on the horizontal axis of a figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from flagscope.records.series import StepRecord
from flagscope.report.spec import plain, rounded

_ROOM = 1 / 9  # share of the axis that the label of a step takes


@dataclass(frozen=True)
class StepAxis:
    """One way to place the steps.

    Parameters
    ----------
    key, choice, words
        Name, entry in the list of choices, and what it is in a sentence.
    title
        Of the axis.
    x
        Where each step stands.
    tickvals, ticktext
        Steps that have a label, and the labels; None where the figure chooses round numbers.
    """

    key: str
    choice: str
    words: str
    title: str
    x: list[float]
    tickvals: list[float] | None
    ticktext: list[str] | None

    def payload(self) -> dict[str, Any]:
        """As in the page's data."""
        return asdict(self)


def step_axes(steps: Sequence[StepRecord]) -> list[StepAxis]:
    """The axes that the numbers of the steps allow, the one that suits them best first.

    A logarithmic one, log(1 + n / the smallest number above 0), has a place for step 0. It comes
    first where the numbers grow by factors: the middle one lies in the first fifth of the range,
    or the first step is less than a twentieth of the usual one. Steps without numbers, or in
    different units, have their order alone.

    Examples
    --------
    >>> def saved(*numbers):
    ...     return [
    ...         StepRecord(name=f"{n}", source="", number=n, unit="step", tensors=1, bytes_total=1,
    ...                    bytes_sampled=1)
    ...         for n in numbers
    ...     ]
    >>> [axis.key for axis in step_axes(saved(0, 80, 400, 2000, 10000))]
    ['log', 'linear', 'order']
    >>> step_axes(saved(0, 80, 400, 2000, 10000))[0].x
    [0.0, 0.301, 0.7782, 1.415, 2.1]
    >>> [axis.key for axis in step_axes(saved(500, 1000, 1500, 2000))]
    ['linear', 'log', 'order']
    """
    labels = [_label(step) for step in steps]
    places = [float(place) for place in range(len(steps))]
    order = StepAxis(
        "order", "in order", "Steps stand in order, equally far apart.", "step",
        places, *_ticks(places, labels),
    )  # fmt: skip
    numbers = [step.number for step in steps if step.number is not None]
    units = {step.unit for step in steps}
    sound = len(numbers) == len(steps) > 1 and len(units) == 1 and numbers[0] >= 0
    if not sound or any(b <= a for a, b in itertools.pairwise(numbers)):
        return [order]
    unit = units.pop() or "step"
    least = next(number for number in numbers if number > 0)
    logs = [rounded(math.log10(1 + number / least)) or 0.0 for number in numbers]
    linear = StepAxis(
        "linear", "linear", f"The {unit} axis is linear.", unit, [float(n) for n in numbers],
        None, None,
    )  # fmt: skip
    log = StepAxis(
        "log", "logarithmic",
        f"The {unit} axis is logarithmic, log(1 + {unit} / {least:,}): it has a place for 0.",
        unit, logs, *_ticks(logs, labels),
    )  # fmt: skip
    return [log, linear, order] if _by_factors(numbers) else [linear, log, order]


def _by_factors(numbers: Sequence[int]) -> bool:
    span = numbers[-1] - numbers[0]
    gaps = [b - a for a, b in itertools.pairwise(numbers)]
    return median(numbers) - numbers[0] < span / 5 or gaps[0] < median(gaps) / 20


def _label(step: StepRecord) -> str:
    return step.name if step.number is None else f"{step.number:,}"


def _ticks(x: Sequence[float], labels: Sequence[str]) -> tuple[list[float], list[str]]:
    """The first and the last step, and those between that leave room for each other."""
    if not x:
        return [], []
    room = (x[-1] - x[0]) * _ROOM
    shown = [0]
    for place in range(1, len(x) - 1):
        if x[place] - x[shown[-1]] >= room and x[-1] - x[place] >= room:
            shown.append(place)
    if len(x) > 1:
        shown.append(len(x) - 1)
    return [x[place] for place in shown], [_cut(labels[place]) for place in shown]


def _cut(label: str) -> str:
    """A label that a figure has room for: names of steps without numbers are of any length."""
    return plain(label if len(label) <= 12 else f"{label[:11]}…")
