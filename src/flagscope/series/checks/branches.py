"""Does each step continue from the one before it, or from an earlier one?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.series.compared import Compared
from flagscope.series.distances import Matrix
from flagscope.series.step import Step

NEARER = 0.8
"""Distance to an earlier step in units of that to the one before, at most, of a branch."""
FROM_START = 2.5
"""Distance to the first step in units of that to the nearest, at most, of a restart."""
KEPT = 0.2
"""Share of the last change that is in a step, at most, where it began before that change.

1 where training goes on; 1/2 for steps that wander about one place without memory.
"""
_HALF = 0.5
_AGREE = 0.7


def branches(series: Compared) -> list[SeriesFault]:
    """Steps that do not continue from the one before, but from an earlier one.

    They lie nearer to it, or hold nothing of what changed between the two. The training went on
    from there: from its start (`restart`), or from a step before (`rolled-back`).
    """
    faults = []
    for place in range(2, len(series.steps)) if series.far.size else ():
        before = place - 1
        source = int(np.argmin(series.far[:before, place]))
        near = _nearer(series, place, source, before)
        if not near and not _without(series, place, source, before):
            continue
        # First steps of two trainings of one start are alike: the second may be nearer than it.
        first = source < 2 and series.far[0, place] <= FROM_START * series.far[source, place]
        anew = first if near else source == 0
        name, origin, last = (
            series.steps[one].place.name for one in (place, source, before)
        )  # fmt: skip
        if near and anew:
            plain = (
                f"{name} lies at the start of the training again, nearest to {origin}, and does "
                f"not continue from {last}."
            )
        elif near:
            plain = (
                f"{name} does not continue from {last}: it lies nearer to {origin}, which is "
                "earlier."
            )
        else:
            plain = f"{name} does not continue from {last}, but from {origin} or near it."
        kept = float(_kept(series.far, place, source, before))
        ratio = series.far[source, place] / series.far[before, place]
        faults.append(
            SeriesFault(
                code="restart" if anew else "rolled-back",
                steps=[name],
                plain=plain,
                evidence=f"It lies {ratio:.2f} times as far from {origin} as from the step before "
                f"it, and holds {kept:.2f} of what changed between these two: 1 where training "
                "goes on. A step before it that is of another training would look the same.",
            )
        )
    return faults


def _nearer(series: Compared, place: int, source: int, before: int) -> bool:
    if not series.far[source, place] <= NEARER * series.far[before, place]:
        return False
    votes = [one.rms[source, place] < one.rms[before, place] for one in series.moving]
    return bool(np.mean(votes) >= _AGREE)


def _without(series: Compared, place: int, source: int, before: int) -> bool:
    """Whether a step holds nothing of the change between an earlier one and the one before."""
    if not _kept(series.far, place, source, before) <= KEPT:
        return False
    votes = [_kept(one.rms, place, source, before) < _HALF for one in series.moving]
    return bool(np.mean(votes) >= _AGREE)


def _kept(far: Matrix, place: int, source: int, before: int) -> float:
    """⟨x - s, b - s⟩ / ‖b - s‖² by the law of cosines, of a step x and two before it."""
    square = far[source, before] ** 2
    inner = (far[source, place] ** 2 + square - far[before, place] ** 2) / 2
    return float(inner / square) if square > 0 else np.nan


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
