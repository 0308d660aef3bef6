"""Tables and sentences of a series of adapters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import pandas

from flagscope.records.series import SeriesRecord
from flagscope.records.series_adapter import (
    LEAST_MODULES,
    STILL_INTERVALS,
    AdapterCurves,
    AdapterObservable,
    DeadKind,
)
from flagscope.report.series.text import median_of_known
from flagscope.report.wording import counted, ranges
from flagscope.shortening import listed

_COLUMNS = ("step", "number", "module", "observable", "value", "label", "run")
_NAMED, _SPIKES = 3, 5
TITLES: dict[AdapterObservable, str] = {
    "norm": "norm of the change",
    "leading": "leading singular value",
    "leading_share": "its share of the squared norm",
    "leading_ratio": "over the other modules' median",
    "used_rank": "used rank",
    "signal_rank": "signal rank",
    "participation": "effective directions",
    "space_kept": "first space kept",
    "zero_directions": "zero directions",
    "drift": "drift of the random factor",
}
REASONS: dict[DeadKind, str] = {
    "deadlock": "column of B and row of A are zero, so the gradient of both is zero",
    "zero": "the column of B or the row of A stays zero while the training moves",
    "still": "neither the column of B nor the row of A changes while others do",
}


class AdapterSummary(NamedTuple):
    """One number of all modules: medians at the first and last step, the largest at the last."""

    title: str
    first: float | None
    last: float | None
    largest: float | None
    label: str


def adapters_frame(record: SeriesRecord) -> pandas.DataFrame:
    """One row for each number of each module of an adapter at each step that has it."""
    rows = []
    for curves in record.adapters:
        numbers: list[tuple[str, Sequence[float | None], str | None]] = [
            ("rank", curves.rank, None),
            ("scaling", curves.scaling, None),
        ]
        numbers += [(one.observable, one.values, one.label) for one in curves.numbers]
        for place in range(max(map(len, curves.singular_values), default=0)):
            values = [s[place] if place < len(s) else None for s in curves.singular_values]
            numbers.append((f"sigma_{place + 1}", values, "functional"))
        rows += [
            (step.name, step.number, curves.module, observable, value, label, curves.run)
            for observable, values, label in numbers
            for step, value in zip(record.steps_of(curves.run), values, strict=True)
            if value is not None
        ]
    return pandas.DataFrame(rows, columns=list(_COLUMNS))


def adapter_summaries(record: SeriesRecord) -> list[AdapterSummary]:
    """A row for each number, at the first and the last step that hold an adapter."""
    ends = {run: _ends(record, run) for run in {curves.run for curves in record.adapters}}
    groups: dict[AdapterObservable, list[tuple[float | None, float | None]]] = defaultdict(list)
    labels: dict[AdapterObservable, str] = {}
    for curves in record.adapters:
        first, last = ends[curves.run]
        for one in curves.numbers:
            groups[one.observable].append((one.values[first], one.values[last]))
            labels[one.observable] = one.label
    found = []
    for observable, values in groups.items():
        first, last = ([x for x in side if x is not None] for side in zip(*values, strict=True))
        found.append(
            AdapterSummary(
                TITLES[observable], median_of_known(first), median_of_known(last),
                max(last, default=None), labels[observable],
            )
        )  # fmt: skip
    return found


def _ends(record: SeriesRecord, run: str | None) -> tuple[int, int]:
    """Places of the first and the last step that hold an adapter."""
    every = [curves.rank for curves in record.adapters if curves.run == run]
    places = [
        place for place, ranks in enumerate(zip(*every, strict=True))
        if any(rank is not None for rank in ranks)
    ]  # fmt: skip
    return (places[0], places[-1]) if places else (0, -1)


def adapter_lines(record: SeriesRecord) -> list[str]:
    """What stands out: modules that spike, directions that are dead; each with its step.

    Examples
    --------
    >>> from flagscope.records.series import Integrity
    >>> from flagscope.records.series_adapter import AdapterCurves, DeadDirections
    >>> integrity = Integrity(
    ...     faults=[], tensors_compared=0, samples=0, frozen=[], frozen_total=0, path_length=None,
    ...     displacement=None, not_looked_at=[],
    ... )
    >>> dead = [DeadDirections(kind="deadlock", directions=[4, 5, 6, 7], since="checkpoint-200")]
    >>> curves = AdapterCurves(
    ...     module="layers.0.q_proj", random="lora_A", rank=[8], scaling=[1.0],
    ...     singular_values=[[]], numbers=[], spike_since=None, dead=dead,
    ... )
    >>> adapter_lines(
    ...     SeriesRecord(
    ...         sources=[], integrity=integrity, steps=[], curves=[], adapters=[curves], notes=[]
    ...     )
    ... )
    ['dead: directions 4–7 of 8 in layers.0.q_proj, from checkpoint-200 on: column of B and row of
    A are zero, so the gradient of both is zero']
    """
    return [*_spikes(record.adapters), *_dead(record.adapters)]


def nothing_stands_out(record: SeriesRecord) -> str:
    """What is said where no module spikes and no direction is dead, and what was not looked for."""
    runs = {curves.run for curves in record.adapters}
    if not any(_changing(record, run) >= LEAST_MODULES for run in runs):
        spikes = f"spikes were not looked for: fewer than {LEAST_MODULES} modules change anything"
    else:
        spikes = "no module spikes"
    steps = max((sum(one is not None for one in curves.rank) for curves in record.adapters),
                default=0)  # fmt: skip
    if steps > STILL_INTERVALS:
        return f"{spikes}, no direction is dead"
    return f"{spikes}, no direction is dead as far as {counted(steps, 'step')} can show"


def _changing(record: SeriesRecord, run: str | None) -> int:
    """Modules that change anything at the last step that holds an adapter."""
    last = _ends(record, run)[1]
    return sum(
        curves.values("leading_ratio")[last] is not None
        for curves in record.adapters
        if curves.run == run and curves.numbers
    )


def _spikes(adapters: Sequence[AdapterCurves]) -> list[str]:
    found: list[tuple[float, str]] = []
    for curves in adapters:
        if curves.spike_since is None:
            continue
        ratios = [x for x in curves.values("leading_ratio") if x is not None]
        share = next(x for x in reversed(curves.values("leading_share")) if x is not None)
        text = (
            f"spike: {_name(curves)}, from {curves.spike_since} on: its leading singular value is "
            f"{ratios[-1]:.3g} times the median of the other modules' at the last step, "
            f"{ratios[0]:.3g} times at the first that changes anything, and has {share:.0%} of "
            "the module's squared norm"
        )
        found.append((ratios[-1], text))
    found.sort(reverse=True)
    more = len(found) - _SPIKES
    lines = [text for _, text in found[:_SPIKES]]
    return [*lines, f"spike: {counted(more, 'more module')}"] if more > 0 else lines


def _dead(adapters: Sequence[AdapterCurves]) -> list[str]:
    groups: dict[tuple[DeadKind, str, str], list[str]] = defaultdict(list)
    for curves in adapters:
        rank = next((rank for rank in reversed(curves.rank) if rank is not None), 0)
        for dead in curves.dead:
            which = f"{ranges(dead.directions)} of {rank:,}"
            groups[dead.kind, dead.since, which].append(_name(curves))
    return [
        f"dead: directions {which} in {_modules(modules)}, from {since} on: {REASONS[kind]}"
        for (kind, since, which), modules in groups.items()
    ]


def _name(curves: AdapterCurves) -> str:
    return curves.module if curves.run is None else f"{curves.run}: {curves.module}"


def _modules(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names):,} modules ({listed(names, _NAMED)})"
