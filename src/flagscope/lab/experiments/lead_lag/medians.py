"""Medians over seeds with bootstrap intervals, and exact tests corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from flagscope.lab.experiment import Estimate
from flagscope.lab.intervals import LEVEL

_DRAWS = 9999


def median_interval(name: str, values: Sequence[float]) -> Estimate:
    """Median over seeds, with the 95 % percentile interval of the bootstrap over seeds.

    Leads have few values with many ties, for which the percentile interval stays defined. It has a
    fixed seed.

    References
    ----------
    .. [1] B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    Examples
    --------
    >>> estimate = median_interval("lead, steps", [0, 5, 5, 5, 10, 10, 40])
    >>> estimate.value, estimate.low, estimate.high
    (5.0, 5.0, 10.0)
    """
    x = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(0).choice(x, (_DRAWS, len(x)))
    tails = (1 - LEVEL) / 2
    low, high = np.quantile(np.median(drawn, axis=1), (tails, 1 - tails))
    value = float(np.median(x))
    return Estimate(name, value, min(float(low), value), max(float(high), value), len(x))


def sign_test(values: Sequence[float]) -> float:
    """One-sided p-value of the exact sign test: is the median above 0? Zeros count against it.

    References
    ----------
    .. [1] W. J. Conover, Practical Nonparametric Statistics (3rd ed. 1999), section 3.4.

    Examples
    --------
    >>> sign_test([1, 2, 3, 0])
    0.3125
    """
    above = sum(value > 0 for value in values)
    return float(stats.binomtest(above, len(values), alternative="greater").pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that one in twenty families has a false claim.

    References
    ----------
    .. [1] S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
       Statistics 6 (1979), 65-70.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
