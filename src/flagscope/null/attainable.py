"""Attainable range of the correlation of two spectra, and how fast its tail vanishes there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flagscope.null.spectrum import Spectrum

# Eigenvalues of unit norm nearer than this count as equal.
_EQUAL = 1e-7


def correlation_end(write: Spectrum, read: Spectrum, side: float) -> tuple[float, float]:
    """Largest value of side · ρ, and the power of the distance from it with which the tail falls.

    The largest value is Σ α_i β_i of both sorted alike (oppositely for the negative side). Near it
    ρ is a quadratic form in the rotations that change it, one for each pair i < j with α_i ≠ α_j
    and β_i ≠ β_j, so the probability of a distance below x is of order x^{pairs/2}.

    Parameters
    ----------
    write, read
        Both spectra, with spread.
    side
        1.0 or -1.0.

    Returns
    -------
    reach, power

    References
    ----------
    J. von Neumann's trace inequality; R. Horn and C. Johnson, Matrix Analysis (2013), theorem
    4.3.53 for the Hermitian case.

    Examples
    --------
    >>> from flagscope.null import spectrum_invariants
    >>> line = spectrum_invariants([1.0, 0.0, 0.0, 0.0])
    >>> [[round(x, 4) for x in correlation_end(line, line, side)] for side in (1.0, -1.0)]
    [[1.0, 1.5], [0.3333, 0.5]]
    """
    if write.centred is None or read.centred is None:
        return 0.0, 0.0
    alpha, beta = write.centred, read.centred[:: 1 if side > 0.0 else -1]
    a, b = _levels(alpha), _levels(beta)
    both = np.unique(a * len(b) + b, return_counts=True)[1]
    equal = (np.bincount(a) ** 2).sum() + (np.bincount(b) ** 2).sum() - (both**2).sum()
    pairs = (len(a) ** 2 - equal) // 2
    return abs(float(alpha @ beta)), 0.5 * float(pairs)


def _levels(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the distinct value that each is, along a sorted array."""
    steps = np.abs(np.diff(values)) > _EQUAL
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64)
