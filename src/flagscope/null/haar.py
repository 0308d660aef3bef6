"""Haar-random bases of subspaces, and the overlap of two: its moments, and a test against them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry import forced_dimension
from flagscope.null.pillai import log_overlap_tails
from flagscope.null.significance import Significance
from flagscope.null.validation import check_dimensions

# A sum of squared cosines outside its range by more than this, relative, is not a rounding error of
# any dtype with at least 8 significant bits.
_SLACK = 2.0**-7


@dataclass(frozen=True)
class Moments:
    """First three moments of a statistic under a null.

    Attributes
    ----------
    mean, variance, third
        Mean, variance and third central moment.
    """

    mean: float
    variance: float
    third: float

    @property
    def sd(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    @property
    def skewness(self) -> float:
        """Third standardised moment; 0 where the variance is 0."""
        return self.third / self.variance**1.5 if self.variance > 0.0 else 0.0


@overload
def haar_bases(normal: NDArray[np.float64]) -> NDArray[np.float64]: ...


@overload
def haar_bases(normal: Tensor) -> Tensor: ...


def haar_bases(normal: NDArray[np.float64] | Tensor) -> NDArray[np.float64] | Tensor:
    """Haar-random orthonormal bases of r-dimensional subspaces of R^d; rotations if r = d.

    The Haar distribution is the one uniform distribution over rotations (with reflections), the
    same for Q and for g Q with any orthogonal g.

    Parameters
    ----------
    normal
        Independent standard normal entries, shape (..., d, r) with r ≤ d.

    Returns
    -------
    array or tensor
        Q of the QR decomposition in which the diagonal of R is positive, shape (..., d, r).

    References
    ----------
    F. Mezzadri, "How to generate random matrices from the classical compact groups", arXiv
    math-ph/0609050.

    Examples
    --------
    >>> haar_bases(np.array([[-3.0], [4.0]])).round(12).tolist()
    [[-0.6], [0.8]]
    """
    if isinstance(normal, Tensor):
        q, r = torch.linalg.qr(normal)
        return q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    q, r = np.linalg.qr(normal)
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def haar_overlap(p: int, q: int, d: int) -> Moments:
    """Exact moments of Σcos² between Haar-random subspaces of dimensions p and q of R^d.

    With T = Σcos² = ‖VᵀU‖_F² = tr P_V P_U,

        E T = p q / d,    Var T = 2 p q (d-p)(d-q) / (d² (d-1)(d+2)),
        E (T - E T)³ = 8 d t_p t_q / ((d-1)(d-2)(d+2)(d+4)),    t_r = r (d-r)(d-2r) / d².

    Parameters
    ----------
    p, q
        Dimensions of the subspaces, 0 to d.
    d
        Dimension of the space.

    Returns
    -------
    Moments

    Raises
    ------
    InputError
        If the dimensions are not integers in range.

    References
    ----------
    B. Collins and P. Śniady, "Integration with respect to the Haar measure on unitary, orthogonal
    and symplectic group", Comm. Math. Phys. 264 (2006) 773-795. T is the inner product of two
    projectors in independent orientation, so its moments follow from the invariants of the
    trace-free parts, Σα² = r(d-r)/d and Σα³ = t_r.

    Examples
    --------
    >>> moments = haar_overlap(1, 1, 2)
    >>> moments.mean, moments.variance, moments.third
    (0.5, 0.125, 0.0)
    """
    check_dimensions(d, p=p, q=q)
    return _haar_overlap(p, q, d)


@lru_cache(maxsize=65536)
def _haar_overlap(p: int, q: int, d: int) -> Moments:
    if d == 1:
        return Moments(float(p * q), 0.0, 0.0)
    variance = 2.0 * p * q * (d - p) * (d - q) / (d * d * (d - 1) * (d + 2))
    third = 0.0
    if d > 2:
        cubes = _cube(p, d) * _cube(q, d)
        third = 8.0 * d * cubes / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    return Moments(p * q / d, variance, third)


def _cube(r: int, d: int) -> float:
    """Trace of the cube of a rank-r projector's trace-free part."""
    return r * (d - r) * (d - 2 * r) / d**2


def overlap_significance(total: float, p: int, q: int, d: int) -> Significance:
    """Two-sided test of Σcos² between two subspaces against the Haar null.

    Parameters
    ----------
    total
        Σcos², the sum of the squared principal cosines.
    p, q, d
        Dimensions of the two subspaces and of the space.

    Returns
    -------
    Significance
        z in exact null standard deviations, and p. Status "no freedom" where
        the dimensions alone fix Σcos² (p or q equal to 0 or d).

    Raises
    ------
    InputError
        If the dimensions are out of range, or `total` is not a possible sum for them.

    Notes
    -----
    p is exact where p, q, d-p or d-q is 1 or 2, and otherwise from the law of Pearson's system with
    four exact moments, continued to the ends of the range by a Beta law (`log_overlap_tails`). A
    value nearer to an end than rounding resolves is tested at the distance that rounding resolves.

    References
    ----------
    K. E. Muller, J. Comput. Graph. Stat. 7 (1998) 131-137: Σcos² is Pillai's trace.

    Examples
    --------
    >>> round(overlap_significance(0.9025, 1, 1, 100).log10_p, 2)
    -50.82
    """
    moments = haar_overlap(p, q, d)
    lower, upper = forced_dimension(p, q, d), min(p, q)
    slack = _SLACK * max(upper, 1)
    if not lower - slack <= total <= upper + slack:
        raise InputError(
            f"total = {total} is no sum of squared cosines: for p = {p}, q = {q}, d = {d} it lies "
            f"between {lower} and {upper}",
            hint="pass Σcos² between orthonormal bases",
        )
    if moments.variance == 0.0:
        return Significance.undefined("no freedom: the dimensions fix the overlap")
    log_cdf, log_sf = log_overlap_tails(total, p, q, d)
    z = (total - moments.mean) / moments.sd
    return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)
