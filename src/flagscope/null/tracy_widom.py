"""The Tracy-Widom law of order 1: the largest eigenvalue at the edge of a real random matrix."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy import special

from flagscope.null.validation import check_finite, check_level

# Below -10 the survival function is 1 to double precision; above 8 its leading term is exact to
# 1e-8, and more the further out.
_LOWEST, _HIGHEST = -10.0, 8.0
# Together they give 4e-11 in the logarithm on that interval; 60 and 40 would give 2e-10.
_DEGREE, _NODES = 64, 48
# e^-40 is beyond what a double can add to 1.
_NEGLIGIBLE = 40.0


def tracy_widom_log_sf(s: float) -> float:
    """Natural logarithm of P(TW1 > s).

    Parameters
    ----------
    s
        Point on the real line.

    Returns
    -------
    float
        Accurate to about 1e-8 relative in the probability, at every s: no underflow.

    Raises
    ------
    InputError
        If `s` is not finite.

    Notes
    -----
    F_1(s) = det(I - K) with K(x, y) = ½ Ai((x+y)/2) on L²(s, ∞), the determinant by Gauss-Legendre
    quadrature, its logarithm summed from the eigenvalues so that a small 1 - F_1 keeps its digits,
    and interpolated by a Chebyshev polynomial that the first call makes (about 0.3 s). Beyond s = 8
    the trace of K, ½∫_s^∞ Ai, stands for all.

    References
    ----------
    P. Ferrari and H. Spohn, J. Phys. A 38 (2005) L557-L561, for the kernel; F. Bornemann, Math.
    Comp. 79 (2010) 871-915, for the method.

    Examples
    --------
    >>> import math
    >>> round(math.exp(tracy_widom_log_sf(0.9793)), 4)
    0.05
    >>> round(tracy_widom_log_sf(300.0))
    -3470
    """
    check_finite(s=s)
    if s <= _LOWEST:
        return 0.0
    if s >= _HIGHEST:
        return _log_leading_tail(s)
    scaled = (2.0 * s - _LOWEST - _HIGHEST) / (_HIGHEST - _LOWEST)
    return min(0.0, float(chebyshev.chebval(scaled, _interpolant())))


@lru_cache(maxsize=256)
def tracy_widom_quantile(level: float) -> float:
    """The point that a TW1 variable exceeds with probability `level`.

    Parameters
    ----------
    level
        Upper-tail probability in (0, 1).

    Returns
    -------
    float
        Accurate to 1e-8.

    Raises
    ------
    InputError
        If `level` is not in (0, 1).

    Examples
    --------
    >>> [round(tracy_widom_quantile(level), 3) for level in (0.05, 0.01, 0.001)]
    [0.979, 2.023, 3.272]
    """
    check_level(level)
    target = math.log(level)
    high = _HIGHEST
    while tracy_widom_log_sf(high) > target:
        high *= 2.0
    # Within 1e-12 of certainty the interpolant's rounding decides, so the search ends there.
    if target > tracy_widom_log_sf(-8.0):
        return -8.0
    low = -8.0
    while high - low > 1e-12 * max(1.0, high):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tracy_widom_log_sf(middle) > target else (low, middle)
    return low


@lru_cache(maxsize=1)
def _interpolant() -> NDArray[np.float64]:
    points = chebyshev.chebpts1(_DEGREE + 1)
    middle, half = 0.5 * (_HIGHEST + _LOWEST), 0.5 * (_HIGHEST - _LOWEST)
    values = np.array([fredholm_log_sf(middle + half * float(x)) for x in points])
    # The points are the roots of T_{n+1}, where Chebyshev polynomials are orthogonal.
    coefficients = chebyshev.chebvander(points, _DEGREE).T @ values * (2.0 / (_DEGREE + 1))
    coefficients[0] *= 0.5
    return coefficients.astype(np.float64)


def fredholm_log_sf(s: float, *, nodes: int = _NODES) -> float:
    """Log of P(TW1 > s) from the Fredholm determinant itself, without interpolation."""
    x, weight = _quadrature(s, nodes)
    root = np.sqrt(weight)
    # The Airy function is most of the cost, so it is taken on one triangle alone.
    row, column = np.tril_indices(nodes)
    kernel = np.zeros((nodes, nodes))
    values = special.airy(0.5 * (x[row] + x[column]))[0]
    kernel[row, column] = 0.5 * root[row] * values * root[column]
    eigenvalues = np.linalg.eigvalsh(kernel)  # reads the lower triangle
    log_cdf = float(np.log1p(-np.minimum(eigenvalues, 1.0 - 1e-16)).sum())
    return math.log(-math.expm1(log_cdf))


def _quadrature(s: float, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre points of (s, end), where Ai(½(s + end)) is negligible beside Ai(s)."""
    x, weight = _legendre(nodes)
    middle = (max(s, 0.0) ** 1.5 + 1.5 * _NEGLIGIBLE) ** (2.0 / 3.0)
    half = middle - s
    return s + half * (1.0 + x), half * weight


@lru_cache(maxsize=4)
def _legendre(nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, weight = np.polynomial.legendre.leggauss(nodes)
    return x, weight


def _log_leading_tail(s: float) -> float:
    """Log of ½∫_s^∞ Ai."""
    exponent = 2.0 / 3.0 * s**1.5
    # From here on the next term of the asymptotic series, 41/(48 s^1.5), is below 1e-8.
    if s > 2e5:
        return -exponent - math.log(4.0 * math.sqrt(math.pi)) - 0.75 * math.log(s)
    # With x = s + u/√s the integrand decays like e^{-u}.
    u, weight = _legendre(_NODES)
    u = 0.5 * _NEGLIGIBLE * (1.0 + u)
    x = s + u / math.sqrt(s)
    # ⅔(x^1.5 - s^1.5) without cancellation.
    growth = 2.0 / 3.0 * s**1.5 * np.expm1(1.5 * np.log1p(u / s**1.5))
    value = float((weight * special.airye(x)[0] * np.exp(-growth)).sum())
    return -exponent + math.log(0.5 * value * 0.5 * _NEGLIGIBLE / math.sqrt(s))
