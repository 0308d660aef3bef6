"""The exponential rate of a positive series in decay time, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from flagscope.errors import InputError
from flagscope.records.series_rates import RateAnswer
from flagscope.series.rates.scatter import leading_coefficient
from flagscope.series.rates.schedule import DecayTime

LEVEL = 0.95
FEWEST = 4
# Σ ηλ between two checkpoints is half of their distance in τ: further apart than 1 / (ηλ) means
# more than 2 in τ.
LONGEST_GAP = 2.0
SHORTEST_SPAN = 1.0
# A value at the floor times this is off by at most 10 % if errors add, by 0.5 % if squares do.
ABOVE_FLOOR = 10.0
# A series bends if its curvature is beyond chance at this level, and its local rate changes by a
# tenth of the rate (or 0.05 where that is less) between the two ends.
BEND_LEVEL = 0.99
_BEND, _LEAST_BEND = 0.1, 0.05


@dataclass(frozen=True)
class RateFit:
    """Rate of a series, or the reason why there is none.

    Attributes
    ----------
    answer
        "rate", or a code that says why there is no number.
    reason
        The reason in words, empty with a rate.
    rate, low, high
        -d log y / dτ and its 95 % interval; None without a rate. The interval is of the scatter
        about a straight line, and of what is not known of the schedule.
    points
        Number of points that were used.
    span
        τ from the first to the last of them.
    correlation
        Mean correlation of the scatter of neighbours; None without a fit.
    ends
        Local rates at the first and the last point, of a parabola; None where it was not fitted.
    """

    answer: RateAnswer
    reason: str = ""
    rate: float | None = None
    low: float | None = None
    high: float | None = None
    points: int = 0
    span: float = 0.0
    correlation: float | None = None
    ends: tuple[float, float] | None = None


def fitted_rate(time: DecayTime, values: Sequence[float], *, floor: float = 0.0) -> RateFit:
    """Fit y = c e^{-rτ} to a positive series.

    The logarithm is fitted by a line, with scatter that may be correlated between neighbours; see
    `flagscope.series.rates.scatter`. Only what can be resolved is used: points from the first on
    that falls to ten times the floor are left out, and of the others the longest run without a gap
    of more than 2 in τ, that is without checkpoints further apart than 1 / (ηλ), is taken.

    Parameters
    ----------
    time
        τ of each value, from `GroupSchedule.decay_time`, ascending.
    values
        The series, not negative.
    floor
        What storage noise alone can make of the diagnostic; 0 if it cannot matter.

    Returns
    -------
    RateFit
        A rate, or one of: `no-decay` (τ does not move), `unresolved` (fewer than four points that
        can be used, or less than 1 in τ between them), `not-exponential` (the rate changes along
        the series).

    Raises
    ------
    InputError
        If lengths differ, times do not ascend, or a value is negative or not finite.

    Notes
    -----
    Assumptions: scatter in log y of one size along the series, Gaussian, with a correlation of
    neighbours between 0 and 0.95 that falls with their distance. Coverage of the 95 % intervals:
    see `benchmarks/rate_coverage.py` and docs/rates.md. What is not seen: a second process of
    nearly the same rate, and whatever came before the first or after the last point.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.linspace(0, 3, 8)
    >>> fit = fitted_rate(DecayTime(t, t, t), 5 * np.exp(-t))
    >>> fit.answer, round(fit.rate, 6)
    ('rate', 1.0)
    >>> fitted_rate(DecayTime(t, t, t), 5 * np.exp(-t) + 1).answer
    'not-exponential'
    >>> fitted_rate(DecayTime(t / 9, t / 9, t / 9), np.exp(-t)).answer
    'unresolved'
    """
    y, tau = np.array(values, dtype=float), time.value
    _check(tau, y, floor)
    if len(tau) > 1 and np.ptp(tau) == 0:
        return RateFit("no-decay", "the weight decay is 0: there is nothing to compare with")
    low = y <= ABOVE_FLOOR * floor
    seen = int(low.argmax()) if low.any() else len(y)
    part = _longest_run(tau[:seen])
    tau, y = tau[part], y[part]
    points, span = len(tau), float(np.ptp(tau)) if len(tau) else 0.0
    reason = _unresolved(points, span, below=len(low) - seen)
    if reason:
        return RateFit("unresolved", reason, points=points, span=span)
    log = np.log(y)
    slope = leading_coefficient(tau, log, order=1, level=LEVEL)
    rate, ends = -slope.value, None
    if points > FEWEST:
        ends, bends = _bent(tau, log, rate, span)
        if bends:
            return RateFit(
                "not-exponential",
                f"the local rate goes from {ends[0]:.3g} to {ends[1]:.3g} along the series",
                points=points,
                span=span,
                ends=ends,
            )
    intervals = [slope] + [
        leading_coefficient(other[part], log, order=1, level=LEVEL)
        for other in (time.low, time.high)
        if not np.array_equal(other, time.value) and (np.diff(other[part]) > 0).all()
    ]
    return RateFit(
        "rate",
        rate=rate,
        low=-max(each.high for each in intervals),
        high=-min(each.low for each in intervals),
        points=points,
        span=span,
        correlation=slope.correlation,
        ends=ends,
    )


def _bent(
    tau: Float[np.ndarray, " n"], log: Float[np.ndarray, " n"], rate: float, span: float
) -> tuple[tuple[float, float], bool]:
    """Local rates at both ends, and whether they differ by more than scatter and a tenth."""
    curve = leading_coefficient(tau, log, order=2, level=BEND_LEVEL)
    # Of the parabola with this curvature; its slope at the middle from what is left.
    middle = (tau[0] + tau[-1]) / 2
    rest = leading_coefficient(tau, log - curve.value * (tau - middle) ** 2, order=1, level=LEVEL)
    half = curve.value * span
    ends = (-rest.value + half, -rest.value - half)
    sure = curve.low > 0 or curve.high < 0
    return ends, sure and abs(2 * half) > max(_BEND * abs(rate), _LEAST_BEND)


def _unresolved(points: int, span: float, *, below: int) -> str:
    """Why a series cannot be resolved, empty if it can."""
    left = f"; {below} lie at the floor of storage noise or come after" if below else ""
    if points < FEWEST:
        return (
            f"{points} checkpoints are close enough to each other (no more than 1/(ηλ) apart), "
            f"and {FEWEST} are needed{left}"
        )
    if span < SHORTEST_SPAN:
        return f"the checkpoints span {span:.3g} of decay time, and 1 is needed{left}"
    return ""


def _longest_run(tau: Float[np.ndarray, " n"]) -> slice:
    """The longest run in which no two neighbours are more than `LONGEST_GAP` apart."""
    cuts = np.flatnonzero(np.diff(tau) > LONGEST_GAP) + 1
    bounds = [0, *cuts.tolist(), len(tau)]
    runs = [slice(a, b) for a, b in pairwise(bounds)]
    return max(runs, key=lambda run: run.stop - run.start)


def _check(tau: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], floor: float) -> None:
    if tau.shape != y.shape or y.ndim != 1:
        raise InputError(f"{len(y)} values were given for {len(tau)} decay times")
    if not (np.isfinite(y).all() and (y >= 0).all() and np.isfinite(floor) and floor >= 0):
        raise InputError("a series whose rate is fitted is finite and not negative")
    moves = np.diff(tau)
    if (moves < 0).any():
        raise InputError("decay times do not ascend", hint="sort the checkpoints by their step")
    if (moves == 0).any() and (moves > 0).any():
        raise InputError(
            "two checkpoints have one decay time", hint="leave out one of two equal steps"
        )
