"""Law of the spectral norm of a matrix of independent entries."""

from __future__ import annotations

import math

from flagscope.errors import InputError
from flagscope.null.tracy_widom import tracy_widom_log_sf, tracy_widom_quantile


def spectral_norm_log_sf(value: float, *, square: float, shape: tuple[int, int]) -> float:
    """Natural logarithm of P(‖E‖ > value) for independent Gaussian entries of equal variance.

    Parameters
    ----------
    value
        Spectral norm.
    square
        Expected squared Frobenius norm, the variance of an entry times their number; positive.
    shape
        Rows and columns.

    Raises
    ------
    InputError
        If `square` is not positive or a dimension is below 1.

    References
    ----------
    I. M. Johnstone, Ann. Statist. 29 (2001) 295-327, theorem 1.1.

    Examples
    --------
    >>> norm = spectral_norm_quantile(0.01, square=64.0 * 256.0, shape=(64, 256))
    >>> round(math.exp(spectral_norm_log_sf(norm, square=64.0 * 256.0, shape=(64, 256))), 4)
    0.01
    """
    centre, spread, unit = _edge(square, shape)
    return tracy_widom_log_sf((value * value / unit - centre) / spread)


def spectral_norm_quantile(level: float, *, square: float, shape: tuple[int, int]) -> float:
    """The spectral norm that such a matrix exceeds with probability `level`.

    Examples
    --------
    >>> round(spectral_norm_quantile(0.01, square=64.0 * 256.0, shape=(64, 256)), 1)
    24.5
    """
    centre, spread, unit = _edge(square, shape)
    return math.sqrt(unit * max(0.0, centre + spread * tracy_widom_quantile(level)))


def _edge(square: float, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Centre and spread of the largest eigenvalue of E Eᵀ in units of the entries' variance."""
    p, m = min(shape), max(shape)
    if p < 1 or not square > 0:
        raise InputError(
            f"square = {square} of a matrix of shape {shape}",
            hint="give a positive squared norm and a shape that is not empty",
        )
    a, b = math.sqrt(max(m - 1, 0.5)), math.sqrt(p)
    return (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3), square / (p * m)
