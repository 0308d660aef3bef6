"""Variance of the commutation defect between Grams in independent orientation."""

from __future__ import annotations

from functools import lru_cache


def defect_variance(d: int, write_kurtosis: float, read_kurtosis: float) -> float:
    """Variance of ν = ‖[Ã, B̃]‖²/(2‖ÃB̃‖²) under the Haar null, to first order.

    ν is a ratio of two statistics f and 2g with ratio of means ν_0 = d²/((d-1)(d+2)). Its variance
    is that of (f - 2ν_0 g)/(2 E g), which is exact: bilinear in Σα⁴/(Σα²)² and 1 of both spectra,
    as `commutator_variance`.

    Parameters
    ----------
    d
        Dimension, at least 2.
    write_kurtosis, read_kurtosis
        Σα⁴/(Σα²)² of the eigenvalues α of each trace-free part, 1/d to 1.

    Returns
    -------
    float
        About (4/d²)(1 + x + y + 3.5 x y), x and y the kurtoses less 1/d. The ratio's own
        variance agrees within 10 % in the standard deviation unless both spectra are nearly of
        rank one; there ν has a standard deviation of 0.42 at d = 6, 0.36 at 12 and 0.30 at 48.

    Examples
    --------
    >>> round(defect_variance(64, 2 / 64, 2 / 64) ** 0.5 * 64 / 2, 2)
    1.0
    """
    if d <= 3:
        # Trace-free spectra then have Σα⁴ = ½(Σα²)², and the general coefficients a pole.
        quartic = 23 * d**6 + 83 * d**5 + 196 * d**4 - 72 * d**3 - 592 * d**2 - 144 * d + 576
        return d * quartic / (2 * (d - 1) ** 3 * (d + 1) * (d + 2) ** 3 * (d + 4) * (d + 6))
    both, one, none = _coefficients(d)
    x, y = write_kurtosis - 1.0 / d, read_kurtosis - 1.0 / d
    return both * x * y + one * (x + y) + none


@lru_cache(maxsize=4096)
def _coefficients(d: int) -> tuple[float, float, float]:
    """Coefficients of xy, x + y and 1, d ≥ 4."""
    common = (d - 3) * (d - 2) * (d - 1) ** 3 * (d + 1) * (d + 2) ** 3 * (d + 4) * (d + 6)
    both = 2 * d**3 * (7 * d**6 - 28 * d**5 + 75 * d**4 + 178 * d**3 - 52 * d**2 - 136 * d + 96)
    one = 4 * d**2 * (d - 6) * (d - 2) * (d - 1) ** 2 * (d + 2) ** 2 * (d + 4)
    none = 4 * d * (d - 2) * (d - 1) * (d + 2) * (d + 4) * (d**2 - 8) * (d**2 + 4 * d - 6)
    return both / common, one / common, none / common
