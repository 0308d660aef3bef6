"""Nulls of the commutator ratio and of the commutation defect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flagscope.errors import InputError
from flagscope.null.significance import Significance
from flagscope.null.tails import log_normal_tails
from flagscope.null.validation import check_finite

# Normal quantile of a central 95 % interval.
_Z95 = 1.959963984540054
# Of d eigenvalues only those further than this from their mean, relative to the largest, are spread
# and not rounding.
_SPREAD = 1e-12


def commutator_variance(d: int, write_kurtosis: float, read_kurtosis: float) -> float:
    """Exact variance of the commutator ratio C between Grams in Haar-random orientation.

    C = ‖[A, QBQᵀ]‖_F² (d-1)(d+2) / (2 d ‖Ã‖²‖B̃‖²) has mean 1. E C² is bilinear in the invariants of
    degree four of the trace-free parts, Σα⁴ and (Σα²)², because no others of that degree exist. The
    three coefficients are fixed by two cases that are elementary: A of rank one, and A Gaussian.

    Parameters
    ----------
    d
        Dimension, at least 2.
    write_kurtosis, read_kurtosis
        k = Σα⁴/(Σα²)² of the eigenvalues α of each trace-free part, 1/d to 1.

    Returns
    -------
    float
        Var C = m_1 k_A k_B + m_2 (k_A + k_B) + m_3 - 1, about 2 (k_A - 1/d)(k_B - 1/d) + 4/d² at
        large d.

    References
    ----------
    Moments of this kind are polynomial invariants of O(d): B. Collins and P. Śniady, Comm. Math.
    Phys. 264 (2006) 773-795.

    Examples
    --------
    >>> round(commutator_variance(2, 0.5, 0.5), 12)  # C = 2 sin²2θ, uniform angle
    0.5
    """
    if d <= 3:
        # Trace-free spectra then have Σα⁴ = ½(Σα²)², and the general coefficients a pole.
        quartic = 3.0 * d**4 + 23.0 * d**3 + 68.0 * d**2 + 108.0 * d + 144.0
        return (d - 1) * (d + 2) * quartic / (2.0 * d**3 * (d + 1) * (d + 4) * (d + 6)) - 1.0
    both, one, none = _quartic_coefficients(d)
    # As a function of x = k - 1/d, free of the cancellation that m_3 - 1 has at large d.
    x, y = write_kurtosis - 1.0 / d, read_kurtosis - 1.0 / d
    return both * x * y + one * (x + y) + none


@lru_cache(maxsize=4096)
def _quartic_coefficients(d: int) -> tuple[float, float, float]:
    """Coefficients of xy, x + y and 1 in Var C, d ≥ 4."""
    common = d**3 * (d - 3) * (d - 2) * (d + 1) * (d + 4) * (d + 6)
    both = d**8 + 3 * d**7 - 5 * d**6 - 19 * d**5 + 24 * d**4 + 44 * d**3 - 48 * d**2
    one = 2 * d**6 - 6 * d**5 - 52 * d**4 + 72 * d**3 + 176 * d**2 - 192 * d
    none = 2 * d**6 + 12 * d**5 - 28 * d**4 - 184 * d**3 + 192 * d**2 + 704 * d - 768
    return 2 * both / common, 2 * one / common, 2 * none / common
