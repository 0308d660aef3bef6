"""Null of the cosine of two vectors, and of the signs and products of their entries."""

from __future__ import annotations

import math

from flagscope.errors import InputError
from flagscope.null.significance import Significance
from flagscope.null.tails import log_beta_tails, log_normal_tails

# Rounding may carry a cosine of equal vectors beyond 1 by this much.
_SLACK = 1e-9
# A cosine of exactly 1 counts as one that rounding cannot distinguish from it.
_NEAREST = 2.0**-52


def cosine_significance(cosine: float, entries: int) -> Significance:
    """One-sided test of a cosine that is large and positive.

    If one of the two vectors has a direction that is uniform on the sphere and independent of the
    other, as a vector of independent normal entries of one variance has, (1 + cos) / 2 follows
    Beta((n - 1)/2, (n - 1)/2) exactly. z is cos · √n.

    Parameters
    ----------
    cosine
        In [-1, 1].
    entries
        n, the dimension; from 2.

    Raises
    ------
    InputError
        If an argument lies outside its range.

    References
    ----------
    R. J. Muirhead, "Aspects of Multivariate Statistical Theory" (1982), theorem 1.5.7.

    Examples
    --------
    >>> round(cosine_significance(0.5, 3).p, 12)  # uniform on [-1, 1] in three dimensions
    0.25
    """
    if not -1.0 - _SLACK <= cosine <= 1.0 + _SLACK or entries < 2:
        raise InputError(
            f"cosine = {cosine} of {entries} entries is not a cosine of two vectors",
            hint="a cosine lies in [-1, 1], and vectors have at least 2 entries here",
        )
    half = (entries - 1) / 2
    point = min(max((1.0 + cosine) / 2, _NEAREST), 1.0 - _NEAREST)
    return Significance.one_sided(
        cosine * math.sqrt(entries), log_tail=log_beta_tails(point, half, half)[1]
    )


def sign_agreement(agree: int, both: int, positive_a: int, positive_b: int) -> float | None:
    """Standard deviations by which equal signs exceed what independent signs give.

    Given how many of the n signs are positive on either side, the number of equal ones is, for a
    random arrangement of one side, that of a hypergeometric law: mean n (p q + (1-p)(1-q)),
    variance 4 n² p (1-p) q (1-q) / (n - 1).

    Parameters
    ----------
    agree
        Entries with equal signs.
    both
        n: entries that are 0 on neither side.
    positive_a, positive_b
        How many of them are positive.

    Returns
    -------
    float or None
        None where the signs of one side are all equal, or there are fewer than 2.

    References
    ----------
    W. Feller, "An Introduction to Probability Theory", vol. 1, section II.6.

    Examples
    --------
    >>> sign_agreement(75, 100, 50, 50)
    4.97...
    """
    if both < 2:
        return None
    p, q = positive_a / both, positive_b / both
    variance = 4.0 * both**2 * p * (1 - p) * q * (1 - q) / (both - 1)
    if variance <= 0.0:
        return None
    return (agree - both * (p * q + (1 - p) * (1 - q))) / math.sqrt(variance)


def log10_upper_tail(z: float) -> float:
    """Decimal logarithm of the upper tail of the standard normal law.

    Examples
    --------
    >>> round(log10_upper_tail(10.0), 2)
    -23.12
    """
    return log_normal_tails(z)[1] / math.log(10.0)
