"""Does each step continue from the one before it, or from an earlier one?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.series.compared import Compared
from flagscope.series.step import Step

NEARER = 0.8
"""Distance to an earlier step in units of that to the one before, at most, of a branch."""
FROM_START = 2.5
"""Distance to the first step in units of that to the nearest, at most, of a restart."""
_AGREE = 0.7


def branches(series: Compared) -> list[SeriesFault]:
    """Steps that lie nearer to an earlier one than to the one before.

    The training went on from there: from its start (`restart`), or from a step before
    (`rolled-back`).
    """
    faults = []
    for place in range(2, len(series.steps)) if series.far.size else ():
        before = place - 1
        source = int(np.argmin(series.far[:before, place]))
        if not _nearer(series, place, source, before):
            continue
        # First steps of two trainings of one start are alike: the second may be nearer than it.
        anew = source < 2 and series.far[0, place] <= FROM_START * series.far[source, place]
        name, origin = series.steps[place].place.name, series.steps[source].place.name
        ratio = series.far[source, place] / series.far[before, place]
        faults.append(
            SeriesFault(
                code="restart" if anew else "rolled-back",
                steps=[name],
                plain=f"{name} lies at the start of the training again, nearest to {origin}, and "
                f"does not continue from {series.steps[before].place.name}."
                if anew
                else f"{name} does not continue from {series.steps[before].place.name}: it lies "
                f"nearer to {origin}, which is earlier.",
                evidence=f"It lies {ratio:.2f} times as far from {origin} as from the step before "
                "it. A step before it that is of another training would look the same.",
            )
        )
    return faults


def _nearer(series: Compared, place: int, source: int, before: int) -> bool:
    if not series.far[source, place] <= NEARER * series.far[before, place]:
        return False
    votes = [one.rms[source, place] < one.rms[before, place] for one in series.moving]
    return bool(np.mean(votes) >= _AGREE)


def logged_anew(steps: Sequence[Step]) -> list[SeriesFault]:
    """Steps whose trainer logged another past than the step before did."""
    faults = []
    known = [step for step in steps if step.state is not None and step.state.log]
    for before, after in itertools.pairwise(known):
        assert before.state is not None
        assert after.state is not None
        past = {(step, key): value for step, key, value in before.state.log}
        now = {(step, key): value for step, key, value in after.state.log}
        shared = past.keys() & now.keys()
        other = sorted({step for step, key in shared if _differ(past[step, key], now[step, key])})
        lost = sorted({step for step, _ in past.keys() - now.keys()})
        name, earlier = after.place.name, before.place.name
        if lost and not shared:
            faults.append(_anew(name, earlier, f"nothing that {earlier} logged is in its log"))
        elif other:
            faults.append(
                SeriesFault(
                    code="rolled-back",
                    steps=[name],
                    plain=f"{name} does not continue from {earlier}: its log differs from step "
                    f"{other[0]:,} on.",
                    evidence=f"{len(other):,} logged steps have other numbers in the "
                    "trainer_state.json of the two.",
                )
            )
        elif _runs_back(after.state.steps):
            faults.append(_anew(name, earlier, "the steps that it lists run backwards"))
    return faults


def _anew(name: str, before: str, why: str) -> SeriesFault:
    return SeriesFault(
        code="restart",
        steps=[name],
        plain=f"{name} is of a training that began anew after {before}.",
        evidence=f"By its trainer_state.json: {why}.",
    )


def _differ(one: float, two: float) -> bool:
    """Whether two logged numbers differ; NaN, as of a gradient that overflowed, is itself."""
    return one != two and not (math.isnan(one) and math.isnan(two))


def _runs_back(steps: Sequence[int]) -> bool:
    return any(after < before for before, after in itertools.pairwise(steps))
