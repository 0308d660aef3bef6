"""Overlap of Haar-random subspaces: moments, and tests against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from flagscope.errors import InputError
from flagscope.null.pillai import log_overlap_tails
from flagscope.null.significance import Significance
from flagscope.null.tails import log_pearson3_tails
from flagscope.null.validation import check_dimensions, check_finite

# A sum of squared cosines outside its range by more than this, relative, is no rounding error of
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
    p is exact where p, q, d-p or d-q is 1 or 2, and otherwise from the Beta law on the range of
    Σcos² with its exact mean and variance (sizes between 0.0090 and 0.0161 at nominal 0.01 from
    p = 3 on). Both tails stay within a few per cent in their logarithm to the ends of the range,
    where the normal law errs by orders of magnitude. A value nearer to an end than rounding can
    tell is tested at the distance that rounding can tell.

    References
    ----------
    K. E. Muller, J. Comput. Graph. Stat. 7 (1998) 131-137: Σcos² is Pillai's trace.

    Examples
    --------
    >>> round(overlap_significance(0.9025, 1, 1, 100).log10_p, 2)
    -50.82
    """
    moments = haar_overlap(p, q, d)
    lower, upper = max(0, p + q - d), min(p, q)
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


def mean_overlap(ranks: Sequence[int], d: int) -> Moments:
    """Exact moments of the mean overlap ratio over all pairs of independent Haar subspaces.

    The ratio is R = mean over pairs i < j of Σcos²_ij / (r_i r_j / d). The pairs are pairwise
    independent but triangles of pairs are not: with N = (d-1)(d+2)/2, u_i = (d-r_i)/r_i,
    c_i = (d-r_i)(d-2r_i)/r_i² and elementary symmetric functions e_k over the subspaces, n pairs,

        E R = 1,    n² Var R = e_2(u)/N,
        n³ E (R-1)³ = 8 e_2(c) / ((d-1)(d-2)(d+2)(d+4)) + 6 e_3(u)/N².

    Parameters
    ----------
    ranks
        Dimensions of the subspaces (heads), each 1 to d; at least two.
    d
        Dimension of the space.

    Returns
    -------
    Moments

    Raises
    ------
    InputError
        If there are fewer than two subspaces or a rank is out of range.

    Examples
    --------
    >>> round(1 / mean_overlap([32] * 12, 384).sd, 1)
    200.8
    """
    return _mean_overlap(_checked_ranks(ranks, d), d)


@lru_cache(maxsize=4096)
def _mean_overlap(ranks: tuple[int, ...], d: int) -> Moments:
    if d == 1:
        return Moments(1.0, 0.0, 0.0)
    pairs = len(ranks) * (len(ranks) - 1) / 2
    _, pair_u, triple_u = _elementary([(d - r) / r for r in ranks])
    variance = pair_u / ((d - 1) * (d + 2) / 2) / pairs**2
    third = 6.0 * triple_u / ((d - 1) * (d + 2) / 2) ** 2
    if d > 2:
        _, pair_c, _ = _elementary([(d - r) * (d - 2 * r) / r**2 for r in ranks])
        third += 8.0 * pair_c / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    return Moments(1.0, variance, third / pairs**3)


def _elementary(values: list[float]) -> tuple[float, float, float]:
    """First three elementary symmetric functions."""
    e1 = e2 = e3 = 0.0
    for value in values:
        e3 += value * e2
        e2 += value * e1
        e1 += value
    return e1, e2, e3


def _checked_ranks(ranks: Sequence[int], d: int) -> tuple[int, ...]:
    ranks = tuple(ranks)
    if len(ranks) < 2:
        raise InputError(
            f"an overlap needs two subspaces, got {len(ranks)}",
            hint="a single head has no partner to be compared with",
        )
    for rank in ranks:
        check_dimensions(d, rank=rank)
        if rank == 0:
            raise InputError(
                "a subspace of dimension 0 has no overlap ratio",
                hint="leave out heads of rank 0",
            )
    return ranks


def mean_overlap_significance(ratio: float, ranks: Sequence[int], d: int) -> Significance:
    """Two-sided test of the mean overlap ratio of several subspaces against the Haar null.

    Parameters
    ----------
    ratio
        Mean over pairs i < j of Σcos²_ij / (r_i r_j / d); 1 under the null.
    ranks, d
        Dimensions of the subspaces, and of the space.

    Returns
    -------
    Significance
        z in exact null standard deviations; p from the Pearson III law with the exact first three
        moments (for two subspaces, from the law of `overlap_significance`). Status "no freedom"
        where the dimensions fix the ratio.

    Raises
    ------
    InputError
        As `mean_overlap`, or if `ratio` is negative or not finite.

    Notes
    -----
    For many subspaces the sum of projectors is Gaussian in the N = (d-1)(d+2)/2 dimensional space
    of trace-free symmetric matrices, so the ratio is an affine image of a χ² with N degrees of
    freedom: exactly of Pearson's type III.

    Examples
    --------
    >>> result = mean_overlap_significance(1.893, [32] * 12, 384)
    >>> round(result.z), result.p, round(result.log10_p)
    (179, 0.0, -3573)
    """
    check_finite(ratio=ratio)
    ranks = _checked_ranks(ranks, d)
    if ratio < 0.0:
        raise InputError(
            f"ratio = {ratio} is negative", hint="pass a mean of sums of squared cosines"
        )
    moments = _mean_overlap(ranks, d)
    if moments.variance == 0.0:
        return Significance.undefined("no freedom: the dimensions fix the overlap")
    if len(ranks) == 2:
        return overlap_significance(ratio * ranks[0] * ranks[1] / d, *ranks, d)
    z = (ratio - 1.0) / moments.sd
    log_cdf, log_sf = log_pearson3_tails(z, moments.skewness)
    return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)
