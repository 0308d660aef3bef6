"""Coverage of the 95 % intervals of fitted rates over simulated series.

    python -m benchmarks.rate_coverage

A series is c e^{-rτ} with normal scatter in its logarithm, whose neighbours may be correlated, at 8
to 40 checkpoints that are evenly or logarithmically spaced or drawn at random, over 1 to 6 in τ.
What a fit calls `not-exponential` or `unresolved` counts apart.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from flagscope.series.rates import DecayTime, RateFit, fitted_rate


@dataclass(frozen=True)
class Planted:
    """A simulated series and its rate."""

    time: np.ndarray
    values: np.ndarray
    rate: float


def planted_series(
    generator: np.random.Generator, *, correlation: float | None = None, points: int | None = None
) -> Planted:
    """One series; correlation and number of points are drawn unless given."""
    if correlation is None:
        correlation = float(generator.choice([0.0, 0.3, 0.6]))
    n = points or int(generator.integers(8, 41))
    span, rate = generator.uniform(1, 6), generator.uniform(0.5, 1.5)
    kind = generator.integers(3)
    if kind == 0:
        time = np.linspace(0, span, n)
    elif kind == 1:
        time = np.geomspace(span / 40, span, n)
    else:
        time = np.sort(generator.uniform(0, span, n))
    drawn = scatter(generator, time, correlation)
    size = 10 ** generator.uniform(-3, -0.7)
    return Planted(time, np.exp(1 - rate * time + size * drawn), rate)


def scatter(generator: np.random.Generator, time: np.ndarray, correlation: float) -> np.ndarray:
    """Normal scatter of unit size, whose neighbours are correlated by their distance."""
    gaps = np.diff(time) / np.diff(time).mean()
    drawn = generator.normal(size=len(time))
    for i in range(1, len(time)):
        link = correlation ** gaps[i - 1] if correlation else 0.0
        drawn[i] = link * drawn[i - 1] + np.sqrt(1 - link**2) * drawn[i]
    return drawn


def fit_of(series: Planted) -> RateFit:
    return fitted_rate(DecayTime(series.time, series.time, series.time), series.values.tolist())


def coverage(seed: int, count: int, **fixed: float | int | None) -> tuple[Counter[str], float]:
    """Answers, and the share of the rates whose interval holds the planted one."""
    generator = np.random.default_rng(seed)
    answers: Counter[str] = Counter()
    held = 0
    for _ in range(count):
        series = planted_series(generator, **fixed)  # pyright: ignore[reportArgumentType]
        fit = fit_of(series)
        answers[fit.answer] += 1
        if fit.low is not None and fit.high is not None:
            held += fit.low <= series.rate <= fit.high
    return answers, held / max(1, answers["rate"])


if __name__ == "__main__":
    for seed in range(5):
        answers, share = coverage(seed, 200)
        print(f"200 series, seed {seed}: {share:.3f} covered; {dict(answers)}", flush=True)
    for correlation in (0.0, 0.3, 0.6, 0.8):
        for points in (8, 15, 40):
            answers, share = coverage(99, 400, correlation=correlation, points=points)
            print(
                f"correlation {correlation:g}, {points} points: {share:.3f}; {dict(answers)}",
                flush=True,
            )
