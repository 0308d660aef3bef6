"""Records of several trainings as one: steps, integrity, and bands over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from scipy import stats

from flagscope.records.series import Integrity, SeriesCurve, SeriesFault, StepRecord
from flagscope.records.series_runs import RunBand, RunRecord, RunsRecord
from flagscope.series.compared import Compared
from flagscope.series.side_by_side import SideBySide, side_by_side

FEW = 5
"""Runs from which the mean over seeds has an interval; of fewer only the range is given."""
_LEVEL = 0.95
_KEPT = 8


class Verified(NamedTuple):
    """What `verified` and `step_records` found of one run."""

    integrity: Integrity
    series: Compared
    steps: list[StepRecord]


def together(runs: Mapping[str, Verified]) -> tuple[Integrity, list[StepRecord], SideBySide]:
    """Integrity of several runs, their steps one run after the other, and what they share."""
    shared = side_by_side({name: run.series for name, run in runs.items()})
    parts = [run.integrity for run in runs.values()]
    frozen = _in_all([part.frozen for part in parts])
    integrity = Integrity(
        faults=[
            *shared.faults,
            *(_of_run(fault, name) for name, run in runs.items() for fault in run.integrity.faults),
        ],
        tensors_compared=min(part.tensors_compared for part in parts),
        samples=min(part.samples for part in parts),
        frozen=frozen[:_KEPT],
        frozen_total=len(frozen),
        path_length=None,
        displacement=None,
        not_looked_at=_not_looked_at(runs),
    )
    steps = [
        step.model_copy(update={"run": name, "name": f"{name}/{step.name}"})
        for name, run in runs.items()
        for step in run.steps
    ]
    return integrity, steps, shared


def with_shared_faults(
    runs: Mapping[str, Verified], faults: Sequence[SeriesFault]
) -> dict[str, Verified]:
    """Each run with those faults too that only a look at the other runs shows, by its own names."""
    found = {}
    for name, run in runs.items():
        own = [
            fault.model_copy(
                update={"steps": [step.removeprefix(f"{name}/") for step in fault.steps]}
            )
            for fault in _faults_of(name, run, faults)
        ]
        integrity = run.integrity.model_copy(update={"faults": [*own, *run.integrity.faults]})
        found[name] = run._replace(integrity=integrity)
    return found


def runs_record(
    runs: Mapping[str, Verified],
    steps: Sequence[StepRecord],
    curves: Sequence[SeriesCurve],
    shared: SideBySide,
) -> RunsRecord:
    """Runs, their relations, and the band of each curve over them.

    Parameters
    ----------
    runs, shared
        As of `together`.
    steps
        Of all runs, one run after the other.
    curves
        Each with a value for each of these.
    """
    records = []
    for name, run in runs.items():
        start = shared.starts[name]
        own = _faults_of(name, run, shared.faults)
        records.append(
            RunRecord(
                name=name,
                steps=len(run.steps),
                faults=len(run.integrity.faults) + len(own),
                path_length=run.integrity.path_length,
                displacement=run.integrity.displacement,
                start=f"{name}/{start.name}" if start.name else None,
                start_answer=start.answer,
                start_of=start.of,
                correlation_own=start.own,
                correlation_other=start.other,
                distance_ratio=start.ratio,
            )
        )
    numbers = [
        {step.number for step in run.steps if step.number is not None} for run in runs.values()
    ]
    return RunsRecord(
        runs=records,
        relations=shared.relations,
        unit=next((step.unit for step in steps if step.unit is not None), None),
        common=sorted(set.intersection(*numbers)),
        bands=[_band(curve, steps, shared) for curve in curves],
    )


def _band(curve: SeriesCurve, steps: Sequence[StepRecord], shared: SideBySide) -> RunBand:
    values: dict[int, dict[str, float]] = {}
    held: dict[int, set[str]] = {}
    for step, value in zip(steps, curve.values, strict=True):
        if step.number is None or step.run is None:
            continue
        held.setdefault(step.number, set()).add(step.run)
        if value is not None:
            # Runs of equal weights are one draw of a seed, and count once.
            run = shared.copies.get(step.number, {}).get(step.run, step.run)
            values.setdefault(step.number, {}).setdefault(run, value)
    numbers = sorted(number for number, runs in held.items() if len(runs) > 1)
    drawn = [list(values.get(number, {}).values()) for number in numbers]
    intervals = [_mean_interval(one) for one in drawn]
    return RunBand(
        part=curve.part,
        pair=curve.pair,
        kind=curve.kind,
        layer=curve.layer,
        observable=curve.observable,
        numbers=numbers,
        runs=[len(one) for one in drawn],
        mean=[fmean(one) if one else None for one in drawn],
        low=[min(one, default=None) for one in drawn],
        high=[max(one, default=None) for one in drawn],
        mean_low=[low for low, _ in intervals],
        mean_high=[high for _, high in intervals],
    )


def _mean_interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < FEW:
        return None, None
    half = stats.t.ppf(0.5 + _LEVEL / 2, len(values) - 1) * stats.sem(values)
    return fmean(values) - float(half), fmean(values) + float(half)


def _faults_of(name: str, run: Verified, faults: Sequence[SeriesFault]) -> list[SeriesFault]:
    steps = {f"{name}/{step.name}" for step in run.steps}
    return [fault for fault in faults if steps.issuperset(fault.steps)]


def _of_run(fault: SeriesFault, run: str) -> SeriesFault:
    return fault.model_copy(
        update={
            "steps": [f"{run}/{step}" for step in fault.steps],
            "plain": f"{run}: {fault.plain}",
        }
    )


def _in_all(lists: Sequence[Sequence[str]]) -> list[str]:
    return [name for name in lists[0] if all(name in other for other in lists[1:])]


def _not_looked_at(runs: Mapping[str, Verified]) -> list[str]:
    """What is not covered: once where it holds of every run, otherwise with the run's name."""
    said = [run.integrity.not_looked_at for run in runs.values()]
    shared = _in_all(said)
    return [
        *shared,
        *(
            f"{name}: {line}"
            for name, lines in zip(runs, said, strict=True)
            for line in lines
            if line not in shared
        ),
    ]
