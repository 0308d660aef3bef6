"""The share of a change that lies in a fixed space, under a random rotation of the change."""

from __future__ import annotations

import math

from flagscope.errors import InputError
from flagscope.null.haar import Moments
from flagscope.null.significance import Significance
from flagscope.null.tails import log_beta_tails
from flagscope.null.validation import check_dimensions

# A share outside [0, 1] by more than this is not a rounding error.
_SLACK = 1e-4
# A variance below this is that of a change with equal singular values.
_NO_SPREAD = 1e-14


def energy_share(k: int, d: int, participation: float) -> Moments:
    """Exact mean and variance of ‖P Q E‖² / ‖E‖², P a projector of rank k, Q Haar-random.

    With PR = (Σσ²)²/Σσ⁴ of E, the mean is k/d and the variance

        2 k (d-k) (1/PR - 1/d) / (d (d-1) (d+2)).

    Parameters
    ----------
    k, d
        Dimensions of the fixed space and of the space it lies in, d ≥ 2.
    participation
        Participation ratio of the singular values of E, between 1 and d.

    Returns
    -------
    Moments
        The third moment is that of the Beta law with this mean and variance.

    Raises
    ------
    InputError
        If a dimension or the participation ratio is out of range.

    References
    ----------
    B. Collins and P. Śniady, Comm. Math. Phys. 264 (2006) 773-795: the share is the inner product
    of P and E Eᵀ in independent orientation.

    Examples
    --------
    >>> moments = energy_share(1, 2, 1.0)
    >>> moments.mean, moments.variance
    (0.5, 0.125)
    """
    check_dimensions(d, k=k)
    if d < 2 or not 1 - _SLACK <= participation <= d * (1 + _SLACK):
        raise InputError(
            f"participation = {participation} in R^{d}",
            hint="(Σσ²)²/Σσ⁴ lies between 1 and d, and d is 2 or more",
        )
    spread = max(0.0, 1.0 / participation - 1.0 / d)
    mean = k / d
    variance = 2.0 * k * (d - k) * spread / (d * (d - 1.0) * (d + 2.0))
    if variance <= 0.0:
        return Moments(mean, 0.0, 0.0)
    size = mean * (1 - mean) / variance - 1
    third = 2 * variance * (1 - 2 * mean) / (size + 2)
    return Moments(mean, variance, third)


def energy_share_significance(share: float, k: int, d: int, participation: float) -> Significance:
    """Two-sided test of the share of E in a fixed space of dimension k.

    Parameters
    ----------
    share
        ‖P E‖² / ‖E‖².
    k, d, participation
        As for `energy_share`.

    Returns
    -------
    Significance
        Status "no freedom" where k is 0 or d, or all singular values of E are equal.

    Raises
    ------
    InputError
        As `energy_share`, or if `share` is not between 0 and 1.

    Notes
    -----
    By the Beta law with the exact mean and variance: exact for a change of rank one, Beta(k/2,
    (d-k)/2), and for one with m columns of independent Gaussian entries, Beta(km/2, (d-k)m/2), on
    average over its spectrum.

    Examples
    --------
    >>> round(energy_share_significance(0.9, 2, 4, 1.0).p, 3)
    0.2
    """
    if not -_SLACK <= share <= 1 + _SLACK:
        raise InputError(f"share = {share} is no share", hint="it lies between 0 and 1")
    moments = energy_share(k, d, participation)
    if moments.variance <= _NO_SPREAD * moments.mean**2 or k in (0, d):
        return Significance.undefined("no freedom: the dimensions fix the share")
    size = moments.mean * (1 - moments.mean) / moments.variance - 1
    # The ends themselves have no logarithm.
    inside = min(max(share, 1e-15), 1 - 1e-15)
    log_cdf, log_sf = log_beta_tails(inside, moments.mean * size, (1 - moments.mean) * size)
    z = (share - moments.mean) / moments.sd
    if not math.isfinite(log_cdf + log_sf):
        return Significance.undefined("beyond double precision")
    return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)
