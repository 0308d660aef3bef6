"""Law of Σcos² between Haar-random subspaces, in logarithms of both tails."""

from __future__ import annotations

import math
import sys
from functools import lru_cache

import numpy as np
from scipy import special

from flagscope.geometry import forced_dimension
from flagscope.null.joined_tails import JoinedTails, joined_tails
from flagscope.null.pearson import unit_nodes
from flagscope.null.tails import log_beta_tails
from flagscope.null.zonal import correlation_fourth_moment

# An integrand this many e-folds below its maximum adds nothing to a double.
_NEGLIGIBLE = 45.0
_NODES = 48


def log_overlap_tails(total: float, p: int, q: int, d: int) -> tuple[float, float]:
    """Log of the lower and upper tail of T = Σcos² between Haar subspaces of dims p and q of R^d.

    Parameters
    ----------
    total
        Point in the range of T, [max(0, p+q-d), min(p, q)]. Nearer to its ends than rounding
        resolves it is moved to where rounding resolves it.
    p, q, d
        Dimensions, 1 ≤ p, q ≤ d - 1.

    Returns
    -------
    log_cdf, log_sf
        Natural logarithms, both finite. Exact where p, q, d-p or d-q is 1 or 2.

    Notes
    -----
    T is Pillai's trace of the multivariate analysis of variance. For one free dimension it is a
    Beta variable; for two, the sum and the product of the two squared cosines have a density whose
    integral is elementary in one of them. Otherwise: down to tails of 1e-4 the law of Pearson's
    system with the exact first four moments, and from there on in proportion to the Beta law on the
    range of T with the exact mean and variance, whose two ends come with about the right exponents.

    References
    ----------
    K. C. S. Pillai, Ann. Math. Stat. 26 (1955) 117-121; K. E. Muller, J. Comput. Graph. Stat. 7
    (1998) 131-137, for the Beta law with two matched moments; `correlation_fourth_moment`.

    Examples
    --------
    >>> import math
    >>> [round(math.exp(tail), 6) for tail in log_overlap_tails(1.0, 2, 2, 4)]
    [0.5, 0.5]
    """
    lower, upper = forced_dimension(p, q, d), min(p, q)
    # Where p + q > d the overlap is p + q - d more than that of the complements.
    if p + q > d:
        p, q = d - p, d - q
    p, q = min(p, q), max(p, q)
    resolution = sys.float_info.epsilon * upper
    overlap = min(max(total - lower, resolution), p - resolution)
    if p == 2:
        # The overlap with the complement of U is 2 - T, so one tail serves for both.
        return _log_upper_of_two(2.0 - overlap, d - q, d), _log_upper_of_two(overlap, q, d)
    if p == 1:
        return log_beta_tails(overlap, 0.5 * q, 0.5 * (d - q))
    return _overlap_law(p, q, d).log_tails(overlap)


@lru_cache(maxsize=65536)
def _overlap_law(p: int, q: int, d: int) -> JoinedTails:
    """Pearson's law, then the Beta law of T/p in proportion."""
    mean = q / d
    # Var(T)/p²
    variance = 2.0 * q * (d - p) * (d - q) / (p * d * d * (d - 1) * (d + 2))
    size = mean * (1.0 - mean) / variance - 1.0
    first, second = mean * size, (1.0 - mean) * size
    fourth = correlation_fourth_moment(d, _kurtosis(p, d), _kurtosis(q, d))
    # In standard deviations T is the correlation of two projectors.
    third = math.sqrt(8.0) * d * math.sqrt((d - 1) * (d + 2)) / ((d - 2) * (d + 4))
    return joined_tails(
        mean=p * mean, sd=p * math.sqrt(variance),
        skewness=third * _skewness(p, d) * _skewness(q, d),
        kurtosis=fourth * ((d - 1) * (d + 2) / 2.0) ** 2,
        outer=lambda overlap: log_beta_tails(overlap / p, first, second), lowest=0.0, highest=p,
    )  # fmt: skip


def _skewness(r: int, d: int) -> float:
    """Σα³/(Σα²)^{3/2} of the trace-free part of a projector of rank r."""
    return (d - 2 * r) / math.sqrt(r * (d - r) * d)


def _kurtosis(r: int, d: int) -> float:
    """Σα⁴/(Σα²)² of the same."""
    return ((d - r) ** 3 + r**3) / (d * d * r * (d - r))


def _log_upper_of_two(t: float, q: int, d: int) -> float:
    """Log P(T > t) for p = 2, 2 ≤ q ≤ d - 2.

    With s = x + y and u = xy of the squared cosines x, y the density is proportional to
    u^{(q-3)/2} (1 - s + u)^{(d-q-3)/2}. Integrated over s, and with u = w²,

        P(T > t) = P(W > t/2) + ∫ w^{q-2} (1 - t + w²)^{(d-q-1)/2} dw / B(q-1, d-q)

    from √max(0, t-1) to t/2, where W is Beta(q-1, d-q).
    """
    power, half = q - 2, 0.5 * (d - q - 1)
    top, bottom = 0.5 * t, math.sqrt(max(0.0, t - 1.0))
    tail = log_beta_tails(top, q - 1.0, d - q + 0.0)[1]
    width = top - bottom
    if width <= 0.0:
        return tail
    peak = power * math.log(top) + 2.0 * half * math.log1p(-top)

    def drop(w: float) -> float:
        inner = (1.0 - t) + w * w
        if w <= 0.0 or inner <= 0.0:
            return (
                math.inf if (power and w <= 0.0) or inner <= 0.0 else peak - half * math.log(inner)
            )
        return peak - power * math.log(w) - half * math.log(inner)

    # The integrand rises with w: leave out what is negligible below.
    if drop(bottom) > _NEGLIGIBLE:
        low, high = bottom, top
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if drop(middle) > _NEGLIGIBLE else (low, middle)
        bottom = low
    # Squared nodes smooth the square root at the lower end.
    x, weight = unit_nodes(_NODES)
    w = bottom + (top - bottom) * x * x
    inner = np.maximum((1.0 - t) + w * w, sys.float_info.min)
    log_value = power * np.log(np.maximum(w, sys.float_info.min)) + half * np.log(inner) - peak
    integral = float((weight * 2.0 * x * np.exp(log_value)).sum()) * (top - bottom)
    rest = peak + math.log(integral) - float(special.betaln(q - 1.0, d - q + 0.0))
    return float(np.logaddexp(tail, rest))
