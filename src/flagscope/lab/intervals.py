"""95 % intervals over seeds, and the rule that turns an interval and a band into a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.special import expit, logit

from flagscope.errors import InputError
from flagscope.lab.experiment import Estimate, Verdict

LEVEL = 0.95
#: Bounds of shares, probabilities and grades of levels, and of correlations.
SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)


def mean_interval(
    name: str, values: Iterable[float], *, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean of independent numbers, with its 95 % interval by Student's t.

    A single number has no interval.

    Parameters
    ----------
    name
        Name of the estimate.
    values
        One number per seed.
    bounds
        Least and greatest possible value, if there are any. Student's interval is then computed on
        the logit scale by the delta method, and stays within the bounds: with m the mean as a
        fraction of the range and s its standard error, logit m ± t s / (m (1 - m)). For
        Beta-distributed numbers with means from 0.5 to 0.99 it covers 92.5 to 97 % at 4 to 16
        seeds, while the symmetric interval covers 84 to 95 % and exceeds the range up to nine times
        in ten. Equal numbers, such as numbers on a bound, give an interval of zero width.

    Raises
    ------
    InputError
        If there are no numbers, or if some are not finite or beyond the bounds.

    References
    ----------
    .. [1] N. Dean, M. Pagano, Evaluating confidence interval methods for binomial proportions in
       clustered surveys, Journal of Survey Statistics and Methodology 3 (2015), 484-503: the
       logit interval among others.

    Examples
    --------
    >>> estimate = mean_interval("ratio", [0.99, 1.0, 1.01])
    >>> f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    '1.000 [0.975, 1.025]'
    >>> estimate = mean_interval("share", [0.98, 0.99, 1.0], bounds=(0, 1))
    >>> f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    '0.990 [0.890, 0.999]'
    """
    x = _finite(name, values)
    if bounds is not None:
        x = _within(name, x, *bounds)
    mean = float(x.mean())
    if len(x) == 1:
        return Estimate(name, mean, None, None, 1, bounds)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(x) - 1) * stats.sem(x))
    if bounds is None:
        return Estimate(name, mean, mean - half, mean + half, len(x))
    low, high = bounds
    share = (mean - low) / (high - low)
    if half == 0 or not 0 < share < 1:
        return Estimate(name, mean, mean, mean, len(x), bounds)
    reach = half / (high - low) / (share * (1 - share))
    ends = low + (high - low) * expit(logit(share) + np.array([-reach, reach]))
    return Estimate(name, mean, float(ends[0]), float(ends[1]), len(x), bounds)


def spearman_interval(name: str, x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Spearman's rank correlation, with the interval of Bonett and Wright.

    Fisher's transformation, with variance (1 + ρ²/2) / (n - 3). No interval below four pairs.

    References
    ----------
    .. [1] D. Bonett, T. Wright, Sample size requirements for estimating Pearson, Kendall and
       Spearman correlations, Psychometrika 65 (2000), 23-28.

    Examples
    --------
    >>> spearman_interval("rho", [1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).value
    0.9
    """
    first, second = _finite(name, x), _finite(name, y)
    if len(first) != len(second):
        raise InputError(f"{name}: {len(first)} numbers cannot be paired with {len(second)}")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise InputError(f"{name}: a constant has no rank correlation")
    rho = round(float(np.asarray(stats.spearmanr(first, second))[0]), 12)
    n = len(first)
    if n < 4:
        return Estimate(name, rho, None, None, n, CORRELATION)
    if abs(rho) == 1:
        return Estimate(name, rho, rho, rho, n, CORRELATION)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return Estimate(name, rho, float(low), float(high), n, CORRELATION)


def share_interval(name: str, held: Sequence[bool]) -> Estimate:
    """Share of successes in independent trials, with its exact 95 % interval.

    References
    ----------
    .. [1] C. Clopper, E. Pearson, The use of confidence or fiducial limits illustrated in the case
       of the binomial, Biometrika 26 (1934), 404-413.

    Examples
    --------
    >>> estimate = share_interval("heads", [True, True, True, True])
    >>> f"{estimate.value:.0f} [{estimate.low:.3f}, {estimate.high:.0f}]"
    '1 [0.398, 1]'
    """
    if not held:
        raise InputError(f"{name}: a share needs at least one trial")
    ends = stats.binomtest(sum(held), len(held)).proportion_ci(LEVEL)
    low, high = float(ends.low), float(ends.high)
    return Estimate(name, sum(held) / len(held), low, high, len(held), SHARE, trials=True)


def joint_ends(estimate: Estimate, together: int) -> tuple[float, float] | None:
    """Ends of an interval widened to the level 1 - 5 %/`together`; None without an interval.

    `together` such intervals all cover their true values with probability at least 95 %, however
    they depend on each other. For a mean, by Student's t on the scale on which the interval is
    symmetric, so that no end passes a bound; for a share of trials, by the exact ends.

    References
    ----------
    .. [1] O. J. Dunn, Multiple comparisons among means, JASA 56 (1961), 52-64.

    Examples
    --------
    >>> [round(end, 3) for end in joint_ends(mean_interval("x", [0.99, 1.0, 1.01]), 4)]
    [0.949, 1.051]
    """
    if estimate.low is None or estimate.high is None:
        return None
    if estimate.trials:
        held = round(estimate.value * estimate.n)
        exact = stats.binomtest(held, estimate.n).proportion_ci(1 - (1 - LEVEL) / together)
        return float(exact.low), float(exact.high)
    degrees = estimate.n - 1
    wide, own = (stats.t.ppf(1 - (1 - LEVEL) / 2 / k, degrees) for k in (together, 1))
    factor = float(wide / own)
    if estimate.bounds is None:
        return _widened(estimate.low, estimate.high, factor)
    if estimate.low == estimate.high:
        return estimate.low, estimate.high
    bottom, top = estimate.bounds
    # An end that was rounded to a bound has no logit: move it to the adjacent number.
    shares = ((np.array([estimate.low, estimate.high]) - bottom) / (top - bottom)).clip(
        np.finfo(float).tiny, 1 - np.finfo(float).epsneg
    )
    low, high = logit(shares).tolist()
    ends = bottom + (top - bottom) * expit(_widened(low, high, factor))
    return float(ends[0]), float(ends[1])


def _widened(low: float, high: float, factor: float) -> tuple[float, float]:
    """Ends of an interval with the same middle and `factor` times the length."""
    middle, half = (high + low) / 2, (high - low) / 2
    return middle - half * factor, middle + half * factor


def lies_outside(estimate: Estimate, low: float, high: float, *, together: int) -> bool:
    """Whether one of `together` intervals excludes a range, at their joint level of 95 %."""
    ends = joint_ends(estimate, together)
    return ends is not None and (ends[1] < low or ends[0] > high)


def band_verdict(
    estimates: Sequence[Estimate], low: float, high: float, *, together: int | None = None
) -> Verdict:
    """Confirmed if every interval lies in [low, high], refuted if one lies outside, else open.

    For a false claim, all of k intervals lie in the band no more often than a single one does. For
    a true claim, one of k lies outside up to k times as often; so the interval that refutes has the
    joint level, see `joint_ends`.

    Parameters
    ----------
    estimates
        All estimates of the claim.
    low, high
        The band.
    together
        k, if these are only some of the estimates of the claim.

    Examples
    --------
    >>> band_verdict([mean_interval("x", [0.9, 1.0, 1.1])], 0.5, 1.5)
    'confirmed'
    >>> band_verdict([mean_interval("x", [0.9, 1.0, 1.1])], 2, 3)
    'refuted'
    """
    count = together or len(estimates)
    if any(lies_outside(e, low, high, together=count) for e in estimates):
        return "refuted"
    ends = [(e.low, e.high) for e in estimates if e.low is not None and e.high is not None]
    whole = bool(estimates) and len(ends) == len(estimates)
    return "confirmed" if whole and all(low <= a and b <= high for a, b in ends) else "open"


def _within(name: str, x: Float[np.ndarray, " n"], low: float, high: float) -> np.ndarray:
    """The numbers, clipped if rounding has moved them past a bound."""
    # Round-off of sums of some hundred terms of size 1 in float64.
    rounding = 1e-12 * (high - low)
    if x.min() < low - rounding or x.max() > high + rounding:
        raise InputError(
            f"{name}: numbers from {x.min():g} to {x.max():g} cannot lie in [{low:g}, {high:g}]"
        )
    return x.clip(low, high)


def _finite(name: str, values: Iterable[float]) -> np.ndarray:
    x = np.asarray(list(values), dtype=float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise InputError(
            f"{name}: expected a list of finite numbers, got shape {x.shape}"
            + ("" if np.isfinite(x).all() else " with values that are not finite")
        )
    return x
