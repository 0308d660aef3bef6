"""What a series says of blocks with dead neurons or heads."""

from __future__ import annotations

from collections.abc import Iterator

from flagscope.records.series import NETWORK, SeriesCurve, SeriesRecord
from flagscope.report.wording import counted, number

_LISTED = 5
_UNITS = {"dead_neurons": "neuron", "dead_heads": "head"}


def dead_lines(record: SeriesRecord) -> list[str]:
    """A line for each block of a training with dead units, the most of them at the end first.

    At most five, and how many are left out.

    Examples
    --------
    >>> from flagscope.records.series import Integrity, StepRecord
    >>> integrity = Integrity(
    ...     faults=[], tensors_compared=0, samples=0, frozen=[], frozen_total=0, path_length=None,
    ...     displacement=None, not_looked_at=[],
    ... )
    >>> steps = [
    ...     StepRecord(name=f"step-{n}", source="", number=n, tensors=1, bytes_total=1,
    ...                bytes_sampled=1)
    ...     for n in (0, 80, 400)
    ... ]
    >>> curve = SeriesCurve(
    ...     part="health", pair="layer.0.mlp", kind="mlp", layer=0, observable="dead_neurons",
    ...     label=None, values=[0, 3, 7], low=[None] * 3, high=[None] * 3,
    ... )
    >>> dead_lines(
    ...     SeriesRecord(sources=[], integrity=integrity, steps=steps, curves=[curve], notes=[])
    ... )
    ['layer.0.mlp: 7 dead neurons at step-400; the first step with any is step-80']
    """
    found = sorted(_found(record), key=lambda one: -one[0])
    lines = [line for _, line in found[:_LISTED]]
    more = len(found) - _LISTED
    return [*lines, f"{counted(more, 'more block')} with dead units"] if more > 0 else lines


def _found(record: SeriesRecord) -> Iterator[tuple[float, str]]:
    """Dead units at the last step with a number, and the line, of each block and run."""
    for curve in record.curves:
        if curve.observable in _UNITS and curve.kind != NETWORK:
            for run in dict.fromkeys(step.run for step in record.steps):
                yield from _line(record, curve, run)


def _line(record: SeriesRecord, curve: SeriesCurve, run: str | None) -> Iterator[tuple[float, str]]:
    known = [
        (step.name, value)
        for step, value in zip(record.steps, curve.values, strict=True)
        if step.run == run and value is not None
    ]
    first = next((name for name, value in known if value), None)
    if first is not None:
        name, last = known[-1]
        units = f"dead {_UNITS[curve.observable]}{'' if last == 1 else 's'}"
        text = f"{curve.pair}: {number(last)} {units} at {name}; the first step with any is {first}"
        yield last, text
