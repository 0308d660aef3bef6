"""Logarithms of distribution tails, finite far beyond the range of floating-point p-values."""

from __future__ import annotations

import math
import sys
from functools import lru_cache

from scipy import special

# Below this the direct tail loses digits to gradual underflow, and its logarithm is computed.
_SAFE = 1e-290
# Relative change at which a continued fraction has converged.
_CONVERGED = 4 * sys.float_info.epsilon
# Both fractions converge in about the square root of their parameters at worst, and much faster in
# tails this far out.
_MAX_TERMS = 100_000
_TINY = 1e-300
# On the thin side a Pearson III law is followed down to this probability, and not beyond.
_THIN = 1e-3


def log_beta_tails(x: float, a: float, b: float) -> tuple[float, float]:
    """Log of the lower and upper tail of the Beta(a, b) law.

    Parameters
    ----------
    x
        Point in (0, 1).
    a, b
        Positive parameters.

    Returns
    -------
    log_cdf, log_sf
        Natural logarithms, relative accuracy about 1e-12 times their parameters' rounding.

    Notes
    -----
    Where the tail underflows: the continued fraction of the incomplete beta function (DLMF
    8.17.22), by Lentz's method.

    Examples
    --------
    >>> log_beta_tails(0.5, 1.0, 4000.0)[1]
    -2772.58...
    """
    lower = float(special.betainc(a, b, x))
    upper = float(special.betaincc(a, b, x))
    log_cdf = math.log(lower) if lower > _SAFE else _log_beta_fraction(x, 1.0 - x, a, b)
    log_sf = math.log(upper) if upper > _SAFE else _log_beta_fraction(1.0 - x, x, b, a)
    return log_cdf, log_sf


def _log_beta_fraction(x: float, y: float, a: float, b: float) -> float:
    """Log of I_x(a, b), y = 1 - x, for x well below the mean."""
    fraction, c, d = 1.0, 1.0, 0.0
    for j in range(_MAX_TERMS):
        m = j // 2
        if j == 0:
            term = 1.0
        elif j % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / ((1.0 + term * d) or _TINY)
        c = (1.0 + term / c) or _TINY
        fraction = fraction * c * d if j else d
        if j and abs(c * d - 1.0) < _CONVERGED:
            break
        if j == 0:
            c = 1.0 / _TINY
    return (
        a * math.log(x)
        + b * math.log(y)
        - float(special.betaln(a, b))
        - math.log(a)
        + math.log(fraction)
    )


def log_gamma_tails(k: float, delta: float) -> tuple[float, float]:
    """Log of the lower and upper tail of the Gamma(k, 1) law at x = k (1 + delta).

    Parameters
    ----------
    k
        Positive shape.
    delta
        Relative distance from the mean, > -1.

    Returns
    -------
    log_cdf, log_sf
        Natural logarithms.

    Notes
    -----
    Where the tail underflows: the series (DLMF 8.7.1) below and the continued fraction (DLMF
    8.9.2) above, times x^k e^{-x}/Γ(k) with the large terms cancelled by Stirling's formula.

    Examples
    --------
    >>> log_gamma_tails(1.0, 999.0)[1]
    -1000.0
    """
    x = k * (1.0 + delta)
    lower = float(special.gammainc(k, x))
    upper = float(special.gammaincc(k, x))
    log_cdf = math.log(lower) if lower > _SAFE else _log_gamma_series(k, x, delta)
    log_sf = math.log(upper) if upper > _SAFE else _log_gamma_fraction(k, x, delta)
    return log_cdf, log_sf


def _log_gamma_prefactor(k: float, delta: float) -> float:
    """Log of x^k e^{-x} / Γ(k) at x = k (1 + delta), without cancellation of large terms."""
    if k < 100.0:
        x = k * (1.0 + delta)
        return k * math.log(x) - x - math.lgamma(k)
    # Stirling's series for lnΓ(k): the next term is below 1e-13 from k = 100 on.
    stirling = 1.0 / (12.0 * k) - 1.0 / (360.0 * k**3)
    return k * (math.log1p(delta) - delta) + 0.5 * math.log(k / (2.0 * math.pi)) - stirling


def _log_gamma_series(k: float, x: float, delta: float) -> float:
    term = total = 1.0 / k
    for n in range(1, _MAX_TERMS):
        term *= x / (k + n)
        total += term
        if term < _CONVERGED * total:
            break
    return _log_gamma_prefactor(k, delta) + math.log(total)


def _log_gamma_fraction(k: float, x: float, delta: float) -> float:
    b = x + 1.0 - k
    c = 1.0 / _TINY
    d = 1.0 / b
    h = d
    for n in range(1, _MAX_TERMS):
        term = -n * (n - k)
        b += 2.0
        d = 1.0 / ((term * d + b) or _TINY)
        c = (b + term / c) or _TINY
        h *= c * d
        if abs(c * d - 1.0) < _CONVERGED:
            break
    return _log_gamma_prefactor(k, delta) + math.log(h)


def log_normal_tails(z: float) -> tuple[float, float]:
    """Log of the lower and upper tail of the standard normal law.

    Examples
    --------
    >>> log_normal_tails(318.0)[1]
    -50568.6...
    """
    return float(special.log_ndtr(z)), float(special.log_ndtr(-z))


def log_pearson3_tails(z: float, skewness: float) -> tuple[float, float]:
    """Log of the lower and upper tail of the Pearson type III law, standardised.

    Parameters
    ----------
    z
        Point, in standard deviations from the mean.
    skewness
        Third standardised moment; 0 is the normal law.

    Returns
    -------
    log_cdf, log_sf
        Natural logarithms, both finite.

    Notes
    -----
    A shifted gamma law with three matched moments ends at -2/skewness standard deviations on its
    thin side, where the law that it stands for does not. So on that side it is followed to a tail
    of 1e-3 and continued from there in proportion to the normal tail, which is heavier: p-values
    stay finite and err to the large side.

    Examples
    --------
    >>> import math
    >>> [round(math.exp(tail), 4) for tail in log_pearson3_tails(2.0, 0.5)]
    [0.9656, 0.0344]
    """
    if skewness < 0.0:
        log_cdf, log_sf = log_pearson3_tails(-z, -skewness)
        return log_sf, log_cdf
    # The shape 4/skewness² is then beyond 4e12 and the law normal to double precision at any z
    # of interest.
    if skewness < 1e-6:
        return log_normal_tails(z)
    shape, z_thin = _pearson3(skewness)
    if z >= z_thin:
        return log_gamma_tails(shape, 0.5 * skewness * z)
    log_cdf = math.log(_THIN) + float(special.log_ndtr(z)) - float(special.log_ndtr(z_thin))
    return log_cdf, math.log1p(-math.exp(log_cdf))


@lru_cache(maxsize=4096)
def _pearson3(skewness: float) -> tuple[float, float]:
    shape = 4.0 / skewness**2
    quantile = float(special.gammaincinv(shape, _THIN))
    return shape, (quantile - shape) / math.sqrt(shape)
