"""When a training has diverged, and when a signal raises an alarm: rules fixed before measuring.

A signal is held against the runs of the same setting that did not diverge. At each step its
deviation is |x - mean| / standard deviation over those runs; for losses and the gradient norm,
whose rise is what people look for, (x - mean) / standard deviation. An alarm asks for two
measurements in a row above the signal's threshold, and fires at the second. The threshold is what
at most one healthy run in twenty exceeds: each of them is scored against the others (leave one
out), and the ⌈0.95 (n + 1)⌉-th smallest of the n scores is the threshold (conformal prediction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from flagscope.lab.experiment import Measured
from flagscope.lab.experiments.lead_lag.signals import Signal

#: Nats by which held-out loss has to exceed its least value so far, at two measurements in a row.
RISE = 0.3
#: Largest share of healthy runs with an alarm.
FALSE_ALARMS = 0.05
#: Fewest healthy runs from which a threshold can be set that one in twenty exceeds.
ENOUGH = 19
# Deviation of what is not finite. JSON has no infinity, and no sound signal comes near.
_BEYOND = 1e9
# Spreads at single steps are at least this share of the spread over all steps, so that counts that
# agree in all runs at a step do not make the smallest difference an alarm.
_LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Run:
    """One training: a row of numbers for each signal."""

    seed: int
    steps: tuple[int, ...]
    finite: tuple[bool, ...]
    series: dict[str, list[float | None]]
    diverged: int | None

    @classmethod
    def of(cls, measured: Measured) -> Run:
        """The run of a measured cell."""
        v: dict[str, Any] = measured.values
        seed = measured.cell.settings["seed"]
        return cls(seed, tuple(v["steps"]), tuple(v["finite"]), v["series"], v["diverged"])

    def values(self, signal: Signal) -> Float[np.ndarray, " t"]:
        """A signal, or its logarithm; NaN where it has no value."""
        x = np.array([math.nan if y is None else y for y in self.series[signal.name]])
        return np.log(np.maximum(x, np.finfo(float).tiny)) if signal.logarithm else x


def divergence(steps: Sequence[int], held_out: Sequence[float | None]) -> int | None:
    """First step at which held-out loss has diverged, by what was measured so far.

    That is the first of two measurements in a row at which it is `RISE` nats or more above its
    least value before, or a measurement at which it is not finite (None).

    Examples
    --------
    >>> divergence([5, 10, 15, 20], [3.0, 3.4, 3.1, 3.2])
    >>> divergence([5, 10, 15, 20], [3.0, 3.4, 3.3, 3.1])
    10
    >>> divergence([5, 10], [3.0, None])
    10
    """
    least, before = math.inf, False
    for i, (step, loss) in enumerate(zip(steps, held_out, strict=True)):
        if loss is None:
            return steps[i - 1] if before else step
        high = loss >= least + RISE
        if high and before:
            return steps[i - 1]
        least, before = min(least, loss), high
    return None


@dataclass(frozen=True)
class Alarms:
    """The alarms of one signal, with a threshold from healthy runs.

    Attributes
    ----------
    signal
        The signal.
    healthy
        At least two runs of equal steps.
    """

    signal: Signal
    healthy: Sequence[Run]

    @cached_property
    def threshold(self) -> float:
        """Largest persistent deviation of all but one healthy run in twenty; see the module."""
        n = len(self.healthy)
        others = [[run for run in self.healthy if run is not own] for own in self.healthy]
        scores = sorted(
            float(self._persistent(own, rest).max())
            for own, rest in zip(self.healthy, others, strict=True)
        )
        return scores[min(n, math.ceil((1 - FALSE_ALARMS) * (n + 1))) - 1]

    def step(self, run: Run) -> int | None:
        """Step at which the alarm fires first."""
        above = self.persistent(run) > self.threshold
        return run.steps[int(above.argmax())] if above.any() else None

    def lead(self, run: Run, every: int) -> int:
        """Steps from the alarm to the divergence of a run that diverged.

        Without an alarm until the measurement that shows the divergence, -`every`: one measurement
        too late.
        """
        assert run.diverged is not None
        fired = self.step(run)
        return -every if fired is None else run.diverged - fired

    def persistent(self, run: Run) -> Float[np.ndarray, " t"]:
        """Deviation of a run from the healthy ones, the smaller of two measurements in a row."""
        return self._persistent(run, self.healthy)

    def _persistent(self, run: Run, healthy: Sequence[Run]) -> Float[np.ndarray, " t"]:
        """The smaller of the deviations at a step and at the one before."""
        deviation = self._deviation(run, healthy)
        before = np.concatenate([[0.0], deviation[:-1]])
        # What is not finite does not come back: it counts at once.
        return np.where(deviation >= _BEYOND, deviation, np.minimum(deviation, before))

    def _deviation(self, run: Run, healthy: Sequence[Run]) -> Float[np.ndarray, " t"]:
        x = run.values(self.signal)
        others = np.stack([other.values(self.signal) for other in healthy])[:, : len(x)]
        known = np.isfinite(others)
        enough = known.sum(axis=0) >= max(2, len(healthy) / 2)
        filled = np.ma.array(others, mask=~known)
        mean = filled.mean(axis=0).filled(math.nan)
        spread = filled.std(axis=0, ddof=1).filled(math.nan)
        least = _LEAST_SPREAD * math.sqrt(np.square(spread[enough]).mean()) if enough.any() else 0.0
        spread = np.maximum(spread, least)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (x - mean) / spread
        # Where all healthy runs have one value throughout, any other is an alarm.
        z = np.where((spread == 0) & (x != mean), np.sign(x - mean) * _BEYOND, z)
        z = z if self.signal.upward else np.abs(z)
        z = np.where(enough & np.isfinite(z), z, 0.0)
        return np.where(np.array(run.finite), np.minimum(z, _BEYOND), _BEYOND)
