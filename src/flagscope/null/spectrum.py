"""Invariants of a Gram's spectrum that its nulls depend on."""

from __future__ import annotations

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
