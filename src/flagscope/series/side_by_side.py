"""Several trainings compared by the samples of their steps: starts, partings, exchanged steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flagscope.records.series import SeriesFault
from flagscope.records.series_runs import RunRelation, RunRelationAnswer
from flagscope.series.checks.foreign import PLAIN, unrelated
from flagscope.series.compared import Compared, compared
from flagscope.series.passages import Passages, Run, Start
from flagscope.series.step import Step

_NONE = -1  # in place of the number of a step


@dataclass(frozen=True)
class SideBySide:
    """What several runs share.

    Attributes
    ----------
    starts
        By run.
    relations
        Of each two runs.
    faults
        Steps that are those of another run.
    copies
        By number of a step, of each run the first run that holds the same weights there.
    """

    starts: dict[str, Start]
    relations: list[RunRelation]
    faults: list[SeriesFault]
    copies: dict[int, dict[str, str]] = field(default_factory=dict)


def side_by_side(runs: Mapping[str, Compared]) -> SideBySide:
    """Compare runs by the samples of their steps, never more than two steps of each at once.

    Parameters
    ----------
    runs
        By name, each with its readable steps. Runs of other tensors, or other shapes, are not
        compared with each other.
    """
    numbered = {name: _numbered(series.steps) for name, series in runs.items()}
    starts = {name: Start("") for name in numbered}
    relations: dict[tuple[str, str], RunRelation] = {}
    faults: list[SeriesFault] = []
    copies: dict[int, dict[str, str]] = {}
    for names in _alike(numbered):
        group = {name: numbered[name] for name in names}
        met = _Met(group)
        relations |= {
            (one, two): met.relation(one, two) for one, two in itertools.combinations(names, 2)
        }
        for number, same in met.copies.items():
            copies.setdefault(number, {}).update(same)
        passed = Passages(group)
        starts |= passed.starts
        faults += passed.faults()
    every = [
        relations.get((one, two))
        or RunRelation(first=one, second=two, answer="not-compared", steps=0)
        for one, two in itertools.combinations(runs, 2)
    ]
    return SideBySide(starts, every, faults, copies)


def _numbered(steps: Sequence[Step]) -> Run:
    run: Run = {}
    for step in steps:
        if step.place.number is not None:
            run.setdefault(step.place.number, step)
    return run


def _alike(runs: Mapping[str, Run]) -> list[list[str]]:
    """Names of runs whose first steps have the same tensors in the same shapes."""
    groups: dict[frozenset[tuple[str, tuple[int, ...]]], list[str]] = {}
    for name, run in runs.items():
        if run:
            headers = next(iter(run.values())).headers
            groups.setdefault(
                frozenset((tensor, one.shape) for tensor, one in headers.items()), []
            ).append(name)
    return list(groups.values())


class _Met:
    """Runs at the steps that at least two of them have: R × R numbers, of one step after another.

    R runs are R² / 2 pairs, so that what is known of each pair is kept and not its distances.
    """

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.copies: dict[int, dict[str, str]] = {}
        self._place = {name: place for place, name in enumerate(runs)}
        shape = len(runs), len(runs)
        self._steps = np.zeros(shape, dtype=np.int64)
        self._until, self._differ = np.full(shape, _NONE), np.full(shape, _NONE)
        self._later: dict[tuple[int, int], list[int]] = {}
        # Of the first step at which both were compared.
        self._correlation, self._chance = np.full(shape, np.nan), np.full(shape, np.nan)
        for number in sorted(set().union(*runs.values())):
            names = [name for name, run in runs.items() if number in run]
            if len(names) > 1:
                self._meet(number, names, compared([runs[name][number] for name in names]))

    def _meet(self, number: int, names: Sequence[str], series: Compared) -> None:
        self.copies[number] = {
            name: names[int(np.argmax(series.equal[i]))] if series.tensors else name
            for i, name in enumerate(names)
        }
        if not series.tensors:
            return
        places = np.array([self._place[name] for name in names])
        here = np.ix_(places, places)
        first, parted = self._steps[here] == 0, self._differ[here] != _NONE
        if series.correlation.size:
            self._correlation[here] = np.where(first, series.correlation, self._correlation[here])
        self._chance[here] = np.where(first, unrelated(series), self._chance[here])
        self._steps[here] += 1
        self._until[here] = np.where(series.equal & ~parted, number, self._until[here])
        self._differ[here] = np.where(~series.equal & ~parted, number, self._differ[here])
        for i, j in np.argwhere(np.triu(series.equal & parted, 1)).tolist():
            self._later.setdefault((int(places[i]), int(places[j])), []).append(number)

    def relation(self, one: str, two: str) -> RunRelation:
        pair = self._place[one], self._place[two]
        if not self._steps[pair]:
            return RunRelation(first=one, second=two, answer="not-compared", steps=0)
        until, differ = (
            None if known[pair] == _NONE else int(known[pair])
            for known in (self._until, self._differ)
        )
        chance, found = float(self._chance[pair]), float(self._correlation[pair])
        correlation = found if np.isfinite(found) else None
        answer = "parted" if until is not None else _origin(correlation, chance)
        return RunRelation(
            first=one,
            second=two,
            answer="same" if differ is None else answer,
            steps=int(self._steps[pair]),
            equal_until=until,
            differ_from=differ,
            equal_later=self._later.get(pair, []),
            correlation=1.0 if until is not None else correlation,
            chance=chance,
        )


def _origin(correlation: float | None, chance: float) -> RunRelationAnswer:
    if correlation is None:
        return "not-compared"
    if correlation > PLAIN:
        return "common-origin"
    return "no-common-origin" if correlation < chance else "unknown"
