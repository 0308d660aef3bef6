"""Steps of which the names do not say where in the order they come."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.series.step import Step
from flagscope.shortening import listed

_NAMED = 3


def unordered(steps: Sequence[Step]) -> tuple[set[int], list[str]]:
    """Places of steps whose order is not checked, and why, in words.

    Where steps and epochs are mixed these are all. Else they are those without a number next to
    others that have one, and those with the number of a step before them, such as the moving
    average of weights (`step_100`, `step_100_ema`).
    """
    units = {step.place.unit for step in steps if step.place.unit is not None}
    if len(units) > 1:
        said = "Some names have numbers of steps and some of epochs: their order was not checked."
        return set(range(len(steps))), [said]
    seen: set[int] = set()
    without, again = [], []
    for place, step in enumerate(steps):
        number = step.place.number
        if number is None:
            without.append(place)
        elif number in seen:
            again.append(place)
        else:
            seen.add(number)
    said = []
    if again:
        names = listed([steps[place].place.name for place in again], _NAMED)
        said.append(
            f"Steps with the number of another were left out of the check of order: {names}."
        )
    if without and seen:
        names = listed([steps[place].place.name for place in without], _NAMED)
        said.append(f"Steps without a number were left out of the check of order: {names}.")
    return {*again, *(without if seen else ())}, said
