"""The largest cosine between Haar-random subspaces: thresholds, tests and counts beyond chance."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy import special

from flagscope.errors import InputError
from flagscope.geometry import forced_dimension
from flagscope.null.significance import Significance
from flagscope.null.tails import log_beta_tails
from flagscope.null.tracy_widom import tracy_widom_log_sf, tracy_widom_quantile
from flagscope.null.validation import check_dimensions, check_finite, check_level

# A cosine above 1 by more than this is not a rounding error of float32.
_SLACK = 1e-4


@dataclass(frozen=True)
class FreeDimensions:
    """What two generic subspaces of R^d leave to chance.

    Attributes
    ----------
    forced
        Cosines that dimension alone forces to 1.
    p, q, d
        An equivalent problem with p ≤ q and p + q ≤ d: the other cosines are those between
        Haar-random subspaces of these dimensions. p = 0 where none is left.
    """

    forced: int
    p: int
    q: int
    d: int


def free_dimensions(p: int, q: int, d: int) -> FreeDimensions:
    """Reduce to the cosines that dimension leaves free.

    Where p + q > d the subspaces meet in at least p + q - d dimensions, and their other principal
    angles are those between their orthogonal complements.

    Parameters
    ----------
    p, q, d
        Dimensions of the subspaces and of the space.

    Returns
    -------
    FreeDimensions

    Raises
    ------
    InputError
        If the dimensions are out of range.

    References
    ----------
    A. Björck and G. Golub, Math. Comp. 27 (1973) 579-594, for principal angles; A. Knyazev and M.
    Argentati, SIAM J. Matrix Anal. Appl. 29 (2006) 15-32, theorem 2.7, for complements.

    Examples
    --------
    >>> free_dimensions(5, 4, 7)
    FreeDimensions(forced=2, p=2, q=3, d=7)
    """
    check_dimensions(d, p=p, q=q)
    forced = forced_dimension(p, q, d)
    small, large = sorted((d - p, d - q) if forced else (p, q))
    return FreeDimensions(forced, small, large, d)


def largest_cosine_threshold(p: int, q: int, d: int, *, level: float) -> float | None:
    """Critical value of the largest free cosine between Haar-random subspaces.

    Parameters
    ----------
    p, q, d
        Dimensions of the subspaces and of the space.
    level
        Probability of exceeding it by chance.

    Returns
    -------
    float or None
        A cosine in (0, 1); None where dimension leaves no cosine free.

    Raises
    ------
    InputError
        If the dimensions or the level are out of range.

    Notes
    -----
    With p ≤ q and p + q ≤ d (`free_dimensions`), by p and the gap g = d - p - q:

    - p = 1: cos² is Beta(q/2, (d-q)/2), exact;
    - g = 1: P(cos²_max < c) = c^{pq/2}, exact;
    - g = 0: p q (1 - cos²_max) has the hard-edge law 1 - exp(-y/2 - √y);
    - otherwise logit cos²_max = μ + σ TW1 with Johnstone's μ and σ.

    References
    ----------
    I. M. Johnstone, "Multivariate analysis and Jacobi ensembles", Ann. Stat. 36 (2008) 2638-2716,
    theorem 1; A. Edelman, SIAM J. Matrix Anal. Appl. 9 (1988) 543-560, for the hard edge.

    Examples
    --------
    >>> round(largest_cosine_threshold(21, 24, 64, level=0.01), 4)
    0.9704
    """
    check_level(level)
    free = free_dimensions(p, q, d)
    return _threshold(free.p, free.q, free.d, level) if free.p else None


@lru_cache(maxsize=65536)
def _threshold(p: int, q: int, d: int, level: float) -> float:
    gap = d - p - q
    if p == 1:
        return math.sqrt(float(special.betainccinv(0.5 * q, 0.5 * (d - q), level)))
    if gap == 1:
        return math.exp(math.log1p(-level) / (p * q))
    if gap == 0:
        # y/2 + √y = -ln(1 - level)
        exponent = -math.log1p(-level)
        root = 2.0 * exponent / (1.0 + math.sqrt(1.0 + 2.0 * exponent))
        return math.sqrt(max(0.0, 1.0 - root * root / (p * q)))
    center, scale = _johnstone(p, q, d)
    return math.sqrt(float(special.expit(center + scale * tracy_widom_quantile(level))))


@lru_cache(maxsize=65536)
def _johnstone(p: int, q: int, d: int) -> tuple[float, float]:
    """Center and scale of the logit of the largest cos², p ≥ 2 and p + q < d."""
    m, n = d - q, q
    total = m + n - 1
    gamma = 2.0 * math.asin(math.sqrt((min(p, n) - 0.5) / total))
    phi = 2.0 * math.asin(math.sqrt((max(p, n) - 0.5) / total))
    center = 2.0 * math.log(math.tan(0.5 * (phi + gamma)))
    cube = 16.0 / (total**2 * math.sin(phi + gamma) ** 2 * math.sin(phi) * math.sin(gamma))
    return center, cube ** (1.0 / 3.0)


def largest_cosine_significance(
    cosine: float, p: int, q: int, d: int, *, sine: float | None = None
) -> Significance:
    """One-sided test of the largest free cosine against the Haar null.

    Parameters
    ----------
    cosine
        Largest cosine that dimension does not force to 1.
    p, q, d
        Dimensions of the subspaces and of the space.
    sine
        Sine of the same angle where it is known better than √(1 - cosine²).

    Returns
    -------
    Significance
        Upper-tail p-value; z is None, since the law is not nearly normal. Status "no freedom" where
        dimension forces all cosines.

    Raises
    ------
    InputError
        If the dimensions are out of range or the cosine outside [0, 1].

    Notes
    -----
    The laws of `largest_cosine_threshold`. A tail of the exact law falls like (1 - cos²)^{(g+1)/2}
    near 1, g = d - p - q, and nowhere faster; the Tracy-Widom tail does not know of that end and is
    continued by this power from where it would fall faster.

    Examples
    --------
    >>> round(largest_cosine_significance(0.99, 21, 24, 64).log10_p, 2)
    -6.43
    """
    check_finite(cosine=cosine)
    if not 0.0 <= cosine <= 1.0 + _SLACK:
        raise InputError(
            f"cosine = {cosine} lies outside [0, 1]", hint="pass a singular value of VᵀU"
        )
    free = free_dimensions(p, q, d)
    if not free.p:
        return Significance.undefined("no freedom: the dimensions force every cosine to 1")
    square = min(cosine, 1.0) ** 2
    # A sine below rounding cannot be distinguished from 0, nor can a cosine.
    rest = max((1.0 - cosine) * (1.0 + cosine) if sine is None else sine * sine, 0.0)
    rest = max(rest, sys.float_info.epsilon if sine is None else sys.float_info.min)
    rest = min(rest, 1.0 - sys.float_info.epsilon)
    square = max(square, sys.float_info.epsilon)
    return Significance.one_sided(None, log_tail=_log_tail(square, rest, free.p, free.q, free.d))


def _log_tail(square: float, rest: float, p: int, q: int, d: int) -> float:
    """Log P(cos²_max > square), rest = 1 - square."""
    gap = d - p - q
    if p == 1:
        # The upper tail at cos² is the lower tail at sin², which may be known better.
        return log_beta_tails(rest, 0.5 * (d - q), 0.5 * q)[0]
    if gap == 1:
        return _log1mexp(-0.5 * p * q * math.log(square))
    if gap == 0:
        y = p * q * rest
        return _log1mexp(0.5 * y + math.sqrt(y))
    center, scale = _johnstone(p, q, d)
    s = (math.log(square / rest) - center) / scale
    # The tail's logarithm has slope about -√s/σ in the logit; its limit is -(g+1)/2.
    turn = (0.5 * (gap + 1) * scale) ** 2
    if s <= turn:
        return tracy_widom_log_sf(s)
    return tracy_widom_log_sf(turn) - 0.5 * (gap + 1) * scale * (s - turn)


def _log1mexp(x: float) -> float:
    """Log of 1 - e^-x for x ≥ 0."""
    x = max(x, sys.float_info.min)
    return math.log(-math.expm1(-x)) if x < 0.7 else math.log1p(-math.exp(-x))


def count_beyond_chance(
    cosines: Sequence[float], p: int, q: int, d: int, *, level: float = 0.01, exact: int = 0
) -> int | None:
    """Number of principal cosines too large for chance, those forced by dimension left out.

    The largest free cosine is tested against its threshold; where it is above, the next one is
    tested among subspaces of R^{d-k} of dimensions p - k and q - k, k counting it and the forced
    ones, and so on to the first that is not above.
    The probability of a count above the number of planted directions is then about `level`.

    Parameters
    ----------
    cosines
        All min(p, q) principal cosines, in any order.
    p, q, d
        Dimensions of the subspaces and of the space.
    level
        Level of each test.
    exact
        Dimension of the exact intersection where it is known, from the sines, the directions that
        dimension forces included. Only the others are tested.

    Returns
    -------
    int or None
        Cosines beyond chance, exact ones that dimension does not force included; None where
        dimension leaves no cosine free.

    Raises
    ------
    InputError
        If the dimensions are out of range or the number of cosines is not min(p, q).

    References
    ----------
    As `largest_cosine_threshold`; the sequence of tests is that for the number of canonical
    correlations, K. Mardia, J. Kent and J. Bibby, Multivariate Analysis (1979), section 10.2.

    Examples
    --------
    >>> count_beyond_chance([0.999, 0.98, 0.3, 0.2], 4, 4, 40)
    2
    """
    check_level(level)
    free = free_dimensions(p, q, d)
    if len(cosines) != min(p, q):
        raise InputError(
            f"expected min(p, q) = {min(p, q)} cosines, got {len(cosines)}",
            hint="pass every principal cosine, forced ones included",
        )
    if not 0 <= exact <= min(p, q):
        raise InputError(
            f"exact = {exact} is not a dimension of an intersection",
            hint=f"it lies between 0 and {min(p, q)}",
        )
    if not free.p:
        return None
    known = max(0, exact - free.forced)
    values = sorted(cosines, reverse=True)[free.forced + known :]
    count = known
    for value in values:
        rest = free
        if count:
            # In the complement of the shared directions the subspaces are generic again.
            gone = free.forced + count
            rest = free_dimensions(p - gone, q - gone, d - gone)
        if value <= _threshold(rest.p, rest.q, rest.d, level):
            break
        count += 1
    return count
