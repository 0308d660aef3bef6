"""Invariants of a Gram's spectrum that its nulls depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flagscope.errors import InputError

# Eigenvalues of a d x d Gram carry rounding errors of about d ε times the largest; a spread below
# this multiple of it is none.
_ROUNDING = 16


@dataclass(frozen=True)
class Spectrum:
    """Invariants of the trace-free part of a Gram, of eigenvalues α with mean 0.

    Attributes
    ----------
    d
        Number of eigenvalues.
    centred
        α / ‖α‖, descending; None where the spectrum has no spread, and all below is then 0.
    skewness
        Σα³/(Σα²)^{3/2}.
    kurtosis
        Σα⁴/(Σα²)², from 1/d for two equal halves to nearly 1 for rank one.
    two_valued_distance
        d Σα⁴/(Σα²)² - d (Σα³)²/(Σα²)³ - 1 ≥ 0: 0 exactly where there are two distinct values, as
        for a multiple of a projector (Pearson's inequality).
    """

    d: int
    centred: NDArray[np.float64] | None
    skewness: float
    kurtosis: float
    two_valued_distance: float

    @property
    def excess(self) -> float:
        """Kurtosis less its least value, 1/d."""
        return self.kurtosis - 1.0 / self.d

    @property
    def negated(self) -> Spectrum:
        """Of the negative of the matrix."""
        centred = None if self.centred is None else -self.centred[::-1]
        return replace(self, centred=centred, skewness=-self.skewness)


def spectrum_invariants(eigenvalues: ArrayLike) -> Spectrum:
    """Invariants of a spectrum after centring.

    Parameters
    ----------
    eigenvalues
        All d eigenvalues, any order, centred or not.

    Returns
    -------
    Spectrum

    Raises
    ------
    InputError
        If they are not a finite, non-empty vector.

    Examples
    --------
    >>> spectrum = spectrum_invariants([1.0, 1.0, 0.0, 0.0])
    >>> spectrum.kurtosis, spectrum.two_valued_distance
    (0.25, 0.0)
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(
            f"eigenvalues must be a non-empty vector, got shape {values.shape}",
            hint="pass the d eigenvalues of one Gram",
        )
    d = values.size
    largest = float(np.abs(values).max())
    if not np.isfinite(largest):
        raise InputError(
            "eigenvalues hold NaN or infinity", hint="leave out maps with such weights"
        )
    if largest == 0.0:
        return Spectrum(d, None, 0.0, 0.0, 0.0)
    # Relative to the largest, so that no power leaves the range of floating point.
    centred = np.sort(values / largest)[::-1]
    centred = centred - centred.mean()
    norm = float(np.sqrt(centred @ centred))
    if norm <= _ROUNDING * d * np.finfo(np.float64).eps:
        return Spectrum(d, None, 0.0, 0.0, 0.0)
    centred = centred / norm
    square = centred * centred
    kurtosis = float(square @ square)
    skew = float(square @ centred)
    return Spectrum(d, centred, skew, kurtosis, max(0.0, d * (kurtosis - skew * skew) - 1.0))


def spectrum_of_moments(
    leading: ArrayLike, *, d: int, square: float, cube: float, fourth: float, least: float
) -> Spectrum:
    """Invariants of a spectrum of which the moments are known and the largest eigenvalues alone.

    Variance, skewness and kurtosis are exact, and so are the moments of nulls that hang on them.
    For what also hangs on single eigenvalues (ends of the law of ρ, its saddlepoint) the unknown
    ones are taken to follow a semicircle with the mean and the variance that is left for them.

    Parameters
    ----------
    leading
        The largest eigenvalues of the trace-free part Ã.
    d
        Dimension.
    square, cube, fourth
        tr Ã², tr Ã³, tr Ã⁴.
    least
        The least that an eigenvalue of Ã can be, -tr A/d.

    Examples
    --------
    >>> values = np.array([3.0, 0.0, -1.0, -2.0])
    >>> moments = [float((values**k).sum()) for k in (2, 3, 4)]
    >>> square, cube, fourth = moments
    >>> known = spectrum_of_moments(
    ...     [3.0], d=4, square=square, cube=cube, fourth=fourth, least=-2.0
    ... )
    >>> exact = spectrum_invariants(values)
    >>> abs(known.kurtosis - exact.kurtosis) < 1e-12, abs(known.skewness - exact.skewness) < 1e-12
    (True, True)
    """
    known = np.sort(np.asarray(leading, dtype=np.float64))[::-1]
    if square <= 0.0:
        return Spectrum(d, None, 0.0, 0.0, 0.0)
    count = d - len(known)
    values = known
    if count > 0:
        mean = -float(known.sum()) / count
        variance = max(0.0, (square - float((known**2).sum())) / count - mean**2)
        bulk = np.maximum(mean + math.sqrt(variance) * _semicircle(count), least)
        values = np.sort(np.concatenate([known, bulk]))[::-1]
    centred = values - values.mean()
    norm = float(np.sqrt(centred @ centred))
    if norm == 0.0:
        return Spectrum(d, None, 0.0, 0.0, 0.0)
    skew, kurtosis = cube / square**1.5, fourth / square**2
    distance = max(0.0, d * (kurtosis - skew * skew) - 1.0)
    return Spectrum(d, centred / norm, skew, kurtosis, distance)


def _semicircle(count: int) -> NDArray[np.float64]:
    """Descending quantiles of the semicircle law of variance 1."""
    angles = np.linspace(0.0, math.pi, 4097)
    share = (angles - np.sin(angles) * np.cos(angles)) / math.pi
    at = (np.arange(count) + 0.5) / count
    return 2.0 * np.cos(np.interp(at, share, angles))


def gram_spectrum(eigenvalues: ArrayLike, d: int) -> Spectrum:
    """Invariants of a d×d Gram matrix with these eigenvalues, and zeros where they are fewer.

    Parameters
    ----------
    eigenvalues
        Any number of them, in any order: of more than d, the least are rounding of zero.
    d
        Size of the matrix.

    Examples
    --------
    >>> gram_spectrum([1.0, 1.0], 4).kurtosis
    0.25
    """
    full = np.zeros(d)
    largest = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1][:d]
    full[: len(largest)] = largest
    return spectrum_invariants(full)
