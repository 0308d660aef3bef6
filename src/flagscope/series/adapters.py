"""Curves of a series of adapters from what was measured of each step: spikes, dead directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from flagscope.records.series_adapter import (
    ADAPTER_LABELS,
    LEAST_MODULES,
    STILL_INTERVALS,
    AdapterCurves,
    AdapterNumber,
    AdapterObservable,
    AdapterStep,
    AdapterStepModule,
    DeadDirections,
    DeadKind,
)

SPIKE_RATIO = 5.0
"""σ₁ of a spike in units of the median σ₁ of the other modules of its step."""
SPIKE_SHARE = 0.8
"""Share of a module's ‖ΔW‖² that the leading direction of a spike holds, at least."""
_LISTED = 16

Modules = dict[str, AdapterStepModule]


def adapter_curves(
    steps: Sequence[AdapterStep | None], names: Sequence[str]
) -> list[AdapterCurves]:
    """Curves of each module that any step has.

    Parameters
    ----------
    steps
        What was measured of each step, None where nothing was.
    names
        Of all steps.

    Notes
    -----
    Thresholds of a spike are conventions: 5 times the median of the other modules, with 80 % of
    the module's own ‖ΔW‖². B = 0 at the first step is the usual start, so a zero direction counts
    as dead only where the training has moved while it was zero, or where column and row are zero:
    then the gradients, s ∂L/∂ΔW aᵢᵀ of the column and s bᵢᵀ ∂L/∂ΔW of the row, are zero too.
    """
    series = _Series(
        [{} if step is None else {one.change.module: one for one in step.modules}
         for step in steps],
        names,
    )  # fmt: skip
    modules = dict.fromkeys(module for step in series.steps for module in step)
    return [series.curves(module) for module in modules]


class _Series:
    """Modules of each step, and how the training moved between steps."""

    def __init__(self, steps: Sequence[Modules], names: Sequence[str]) -> None:
        self.steps, self._names = steps, names
        self._measured = [place for place, step in enumerate(steps) if step]
        self._ratios = [_ratios(step) for step in steps]
        # Places of measured steps at which any factor differs from the measured step before.
        self._moved = {
            place for before, place in pairwise(self._measured)
            if _differ(steps[before], steps[place])
        }  # fmt: skip

    def curves(self, module: str) -> AdapterCurves:
        """Those of one module."""
        steps = [step.get(module) for step in self.steps]
        ratios = [step.get(module) for step in self._ratios]

        def curve(number: Callable[[AdapterStepModule], float | None]) -> list[float | None]:
            return [None if one is None else number(one) for one in steps]

        values: dict[AdapterObservable, list[float | None]] = {
            "norm": curve(lambda one: one.change.norm),
            "leading": curve(_leading),
            "leading_share": curve(_share),
            "leading_ratio": list(ratios),
            "used_rank": curve(lambda one: one.change.used_rank),
            "signal_rank": curve(lambda one: one.signal_rank),
            "participation": curve(lambda one: one.change.participation or None),
            "space_kept": curve(lambda one: one.space_kept),
            "zero_directions": curve(lambda one: len({*one.zero_a, *one.zero_b})),
            "drift": curve(lambda one: one.drift),
        }
        spikes = [
            one is not None and ratio is not None and self._is_spike(place, one, ratio)
            for place, (one, ratio) in enumerate(zip(steps, ratios, strict=True))
        ]
        start = self._start(spikes.__getitem__)
        return AdapterCurves(
            module=module,
            random=next(one.random for one in steps if one is not None),
            rank=[None if one is None else one.change.rank for one in steps],
            scaling=[None if one is None else one.change.scaling for one in steps],
            singular_values=[
                [] if one is None else one.change.singular_values[:_LISTED] for one in steps
            ],
            numbers=[
                AdapterNumber(observable=name, label=ADAPTER_LABELS[name], values=numbers)
                for name, numbers in values.items()
            ],
            spike_since=None if start is None else self._names[start],
            dead=self._dead(steps),
        )

    def _is_spike(self, place: int, one: AdapterStepModule, ratio: float) -> bool:
        enough = len(self._ratios[place]) >= LEAST_MODULES
        return enough and ratio >= SPIKE_RATIO and (_share(one) or 0.0) >= SPIKE_SHARE

    def _start(self, holds: Callable[[int], bool]) -> int | None:
        """The measured step from which on something holds, to the last; None if not at the last."""
        start = None
        for place in reversed(self._measured):
            if not holds(place):
                break
            start = place
        return start

    def _dead(self, steps: Sequence[AdapterStepModule | None]) -> list[DeadDirections]:
        last = steps[self._measured[-1]] if self._measured else None
        found: dict[tuple[DeadKind, int], list[int]] = {}
        for direction in range(0 if last is None else last.change.rank):
            state = self._state(steps, direction)
            if state is not None:
                found.setdefault(state, []).append(direction)
        return [
            DeadDirections(kind=kind, directions=directions, since=self._names[start])
            for (kind, start), directions in sorted(found.items())
        ]

    def _state(
        self, steps: Sequence[AdapterStepModule | None], direction: int
    ) -> tuple[DeadKind, int] | None:
        """How a direction is dead at the last step and from which place on; None if it is not."""

        def since(holds: Callable[[AdapterStepModule], bool]) -> int | None:
            def there(place: int) -> bool:
                one = steps[place]
                return one is not None and direction < one.change.rank and holds(one)

            return self._start(there)

        last = steps[self._measured[-1]]
        assert last is not None
        start = since(lambda one: direction in one.zero_a and direction in one.zero_b)
        if start is not None:
            return "deadlock", start
        digest = last.digests[direction]
        states: list[tuple[DeadKind, int, Callable[[AdapterStepModule], bool]]] = [
            ("zero", 1, lambda one: direction in one.zero_a or direction in one.zero_b),
            ("still", STILL_INTERVALS, lambda one: one.digests[direction] == digest),
        ]
        for kind, least, holds in states:
            start = since(holds)
            if start is not None and sum(place > start for place in self._moved) >= least:
                return kind, start
        return None


def _differ(one: Modules, two: Modules) -> bool:
    return any(one[name].digests != two[name].digests for name in one if name in two)


def _leading(one: AdapterStepModule) -> float:
    return one.change.singular_values[0]


def _share(one: AdapterStepModule) -> float | None:
    """σ₁²/‖ΔW‖²; None where nothing changes."""
    return (_leading(one) / one.change.norm) ** 2 if one.change.norm else None


def _ratios(step: Modules) -> dict[str, float]:
    """σ₁ of each module over the median σ₁ of the others, of those that change anything."""
    leading = {name: _leading(one) for name, one in step.items() if one.change.norm}
    if len(leading) < 2:
        return {}
    return {
        name: value / median(other for key, other in leading.items() if key != name)
        for name, value in leading.items()
    }
