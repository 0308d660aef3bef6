"""How far storage rounding of two maps may move the diagnostics of their pair, to first order."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RoundingOfDiagnostics:
    """Upper estimates of the differences that rounding gives.

    Attributes
    ----------
    commutator_ratio, gram_correlation, commutation_defect, imbalance
        Of each diagnostic.
    """

    commutator_ratio: float
    gram_correlation: float
    commutation_defect: float | None
    imbalance: float


def gram_rounding(relative: float, n: int, *, participation: float, d: int) -> float:
    """‖δÃ‖ / ‖Ã‖ of the trace-free Gram matrix of a map with independent rounding errors.

    With W of shape (d, n), ‖E‖_F = r ‖W‖_F and E of independent entries, δA = W Eᵀ + E Wᵀ has the
    mean square 2 r² ‖W‖⁴ / n, and ‖Ã‖² = ‖W‖⁴ (1/PR - 1/d).

    Parameters
    ----------
    relative
        r, of the map.
    n
        Its size on the side that is not shared.
    participation
        Participation ratio PR of its squared singular values.
    d
        Size of the shared space.

    Returns
    -------
    float
        Infinite where Ã is 0.

    Examples
    --------
    >>> round(gram_rounding(0.001, 100, participation=2.0, d=100), 7)
    0.000202
    """
    spread = 1 / participation - 1 / d
    return math.inf if spread <= 0 else relative * math.sqrt(2 / (n * spread))


def rounding_of_diagnostics(
    errors: tuple[float, float],
    imbalance: tuple[float, float],
    *,
    commutator_ratio: float,
    gram_correlation: float,
    commutation_defect: float,
) -> RoundingOfDiagnostics:
    """Upper estimates of what small errors of both Gram matrices do to the diagnostics of a pair.

    δρ lies across Ã and B̃ and is at most the error of their directions. √C moves by an error in
    units in which random Gram matrices give 1, and by the norms; √ν likewise, in units of the
    product ÃB̃. No use is made of the errors' random direction, which makes them several
    times smaller.

    Parameters
    ----------
    errors
        ‖δÃ‖/‖Ã‖ and ‖δB̃‖/‖B̃‖ (`gram_rounding`).
    imbalance
        ‖δA‖/‖A‖ and ‖δB‖/‖B‖, traces included.
    commutator_ratio, gram_correlation, commutation_defect
        Of the pair.

    Returns
    -------
    RoundingOfDiagnostics

    Examples
    --------
    >>> small = rounding_of_diagnostics((1e-4, 0.0), (1e-4, 0.0), commutator_ratio=1.0,
    ...     gram_correlation=0.0, commutation_defect=1.0)
    >>> round(small.commutator_ratio, 6), round(small.gram_correlation, 6)
    (0.0004, 0.0001)
    """
    error = math.hypot(*errors)
    root = math.sqrt(max(0.0, commutator_ratio))
    of_defect = None
    if root > 0:
        spread = math.sqrt(max(0.0, commutation_defect))
        of_defect = 2 * commutation_defect * (1 + spread) * error / root
    return RoundingOfDiagnostics(
        commutator_ratio=2 * root * (1 + root) * error + error**2,
        gram_correlation=math.sqrt(max(0.0, 1 - gram_correlation**2)) * error + error**2,
        commutation_defect=of_defect,
        imbalance=math.hypot(*imbalance),
    )
