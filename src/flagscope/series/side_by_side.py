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
    """Runs at the steps that at least two of them have."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self.copies: dict[int, dict[str, str]] = {}
        self._met: dict[int, tuple[list[str], Compared]] = {}
        for number in sorted(set().union(*runs.values())):
            names = [name for name, run in runs.items() if number in run]
            if len(names) > 1:
                series = compared([runs[name][number] for name in names])
                self._met[number] = names, series
                self.copies[number] = {
                    name: names[int(np.argmax(series.equal[i]))] if series.tensors else name
                    for i, name in enumerate(names)
                }

    def relation(self, one: str, two: str) -> RunRelation:
        common = {
            number: (series, names.index(one), names.index(two))
            for number, (names, series) in self._met.items()
            if one in names and two in names and series.tensors
        }
        if not common:
            return RunRelation(first=one, second=two, answer="not-compared", steps=0)
        equal = {number: bool(series.equal[i, j]) for number, (series, i, j) in common.items()}
        differ = next((number for number, same in equal.items() if not same), None)
        until = [number for number in equal if differ is None or number < differ]
        later = [number for number, same in equal.items() if same and number not in until]
        series, i, j = next(iter(common.values()))
        known = series.correlation.size > 0 and np.isfinite(series.correlation[i, j])
        correlation = float(series.correlation[i, j]) if known else None
        answer = "same" if differ is None else "parted" if until else _origin(correlation, series)
        return RunRelation(
            first=one,
            second=two,
            answer=answer,
            steps=len(common),
            equal_until=until[-1] if until else None,
            differ_from=differ,
            equal_later=later,
            correlation=1.0 if until else correlation,
            chance=unrelated(series),
        )


def _origin(correlation: float | None, series: Compared) -> RunRelationAnswer:
    if correlation is None:
        return "not-compared"
    if correlation > PLAIN:
        return "common-origin"
    return "no-common-origin" if correlation < unrelated(series) else "unknown"
