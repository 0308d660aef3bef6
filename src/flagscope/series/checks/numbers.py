"""Do the numbers in the names run on, and agree with what the trainer wrote?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from flagscope.records.series import SeriesFault
from flagscope.series.places import Place
from flagscope.series.step import Step
from flagscope.shortening import listed

_NAMED = 6
_MOST_MISSING = 1000  # more steps make another spacing
_LEAST = 4  # numbers from which a spacing is seen
_USUAL = 0.6  # share of equal distances that make a spacing


def wrong_numbers(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps whose name says another number than their trainer_state.json."""
    faults = []
    for step in steps:
        number, state = step.place.number, step.state
        if number is None or state is None or state.step is None or step.place.unit != "step":
            continue
        if state.step != number:
            faults.append(
                SeriesFault(
                    code="wrong-number",
                    steps=[step.place.name],
                    plain=f"{step.place.name} is step {state.step:,} by its trainer_state.json.",
                    evidence=f"global_step is {state.step:,}, the name says {number:,}.",
                )
            )
    return faults


def gaps(places: Sequence[Place]) -> list[SeriesFault]:
    """Numbers that are missing where most numbers lie equally far apart, or by equal factors."""
    numbers = sorted({place.number for place in places if place.number is not None})
    units = {place.unit for place in places if place.unit is not None}
    if len(numbers) < _LEAST or len(units) > 1:
        return []
    names = {place.number: place.name for place in places}
    apart = [after - before for before, after in itertools.pairwise(numbers)]
    spacing, often = Counter(apart).most_common(1)[0]
    if often < _USUAL * len(apart):
        return _gaps_by_factor(numbers, names)
    faults = []
    for before, after in itertools.pairwise(numbers):
        count = (after - before) // spacing - 1
        if (after - before) % spacing or not 1 <= count <= _MOST_MISSING:
            continue
        missing = [str(before + spacing * (i + 1)) for i in range(count)]
        faults.append(_gap(names[before], names[after], missing, f"{spacing:,} apart"))
    return faults


def _gaps_by_factor(numbers: Sequence[int], names: dict[int | None, str]) -> list[SeriesFault]:
    """1, 2, 4, 16, 32: 8 is missing."""
    powers = [number for number in numbers if number > 0]
    exact = [
        (before, after) for before, after in itertools.pairwise(powers)
        if after % before == 0
    ]  # fmt: skip
    if len(powers) < 3 or len(exact) < len(powers) - 1:
        return []
    factors = sorted(after // before for before, after in exact)
    if len(powers) <= _LEAST:
        return _one_of_few_powers(exact, factors, names)
    factor, often = Counter(factors).most_common(1)[0]
    if factor < 2 or often < _USUAL * len(exact):
        return []
    faults = []
    for before, after in exact:
        missing, number = [], before * factor
        while number < after and after % number == 0:
            missing.append(str(number))
            number *= factor
        if missing and number == after:
            faults.append(_gap(names[before], names[after], missing, f"a factor {factor} apart"))
    return faults


def _one_of_few_powers(
    exact: Sequence[tuple[int, int]], factors: Sequence[int], names: dict[int | None, str]
) -> list[SeriesFault]:
    """80, 2000, 10000: 400 is missing if all steps grow by one factor."""
    factor = factors[0]
    if factor < 2 or list(factors) != [factor] * (len(factors) - 1) + [factor**2]:
        return []
    before, after = next((one, two) for one, two in exact if two // one > factor)
    usual = next((one, two) for one, two in exact if two // one == factor)
    return [
        SeriesFault(
            code="gap",
            steps=[names[before], names[after]],
            plain=f"Between {names[before]} and {names[after]} {before * factor} is missing, if "
            f"each step is {factor} times the one before.",
            evidence=f"{names[usual[1]]} is {factor} times {names[usual[0]]}, and "
            f"{names[after]} is {factor}² times {names[before]}. So few numbers show no rule.",
        )
    ]


def _gap(before: str, after: str, missing: list[str], spacing: str) -> SeriesFault:
    verb = "is" if len(missing) == 1 else "are"
    return SeriesFault(
        code="gap",
        steps=[before, after],
        plain=f"Between {before} and {after} {listed(missing, _NAMED)} {verb} missing.",
        evidence=f"Most steps are {spacing}.",
    )
