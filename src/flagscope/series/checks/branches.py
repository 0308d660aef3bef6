"""Does each step continue from the one before it, or from an earlier one?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.series.compared import Compared
from flagscope.series.step import Step

NEARER = 0.8
"""Distance to an earlier step in units of that to the one before, at most, of a branch."""
_AGREE = 0.7


def branches(series: Compared, left: set[int]) -> list[SeriesFault]:
    """Steps that lie nearer to an earlier one than to the one before.

    The training went on from there: from its start (`restart`), or from a step before
    (`rolled-back`).
    """
    faults = []
    places = [place for place in range(len(series.steps)) if place not in left]
    for position, place in enumerate(places):
        earlier = places[: position - 1]
        if position < 2 or not series.far.size:
            continue
        before = places[position - 1]
        source = min(earlier, key=lambda other: series.far[other, place])
        if not _nearer(series, place, source, before):
            continue
        name, origin = series.steps[place].place.name, series.steps[source].place.name
        ratio = series.far[source, place] / series.far[before, place]
        anew = source == places[0]
        faults.append(
            SeriesFault(
                code="restart" if anew else "rolled-back",
                steps=[name],
                plain=f"{name} continues from {origin}, not from "
                f"{series.steps[before].place.name}: the training began anew."
                if anew
                else f"{name} continues from {origin}, not from {series.steps[before].place.name}.",
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
        other = sorted({step for step, key in shared if past[step, key] != now[step, key]})
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
        elif _warm_again(after):
            faults.append(_anew(name, earlier, "its learning rate warms up a second time"))
    return faults


def _anew(name: str, before: str, why: str) -> SeriesFault:
    return SeriesFault(
        code="restart",
        steps=[name],
        plain=f"{name} is of a training that began anew after {before}.",
        evidence=f"By its trainer_state.json: {why}.",
    )


def _warm_again(step: Step) -> bool:
    return False if step.state is None else _restarts(step.state.log)


def _restarts(log: Sequence[tuple[int, str, float]]) -> bool:
    """Whether logged steps run backwards."""
    steps = [number for number, key, _ in log if key == "learning_rate"]
    return any(after < before for before, after in itertools.pairwise(steps))
