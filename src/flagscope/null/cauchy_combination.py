"""One p-value of several tests on the same pair, whatever the dependence between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.errors import InputError

# A p-value of 1 would count as evidence of infinite weight against all others.
_LARGEST = 0.99
# Below this the cotangent is 1/(πp) to double precision, and p may have underflowed.
_SMALL = 1e-8


@dataclass(frozen=True)
class CombinedTest:
    """The combination of several tests.

    Attributes
    ----------
    log10_p
        Decimal logarithm of the combined p-value.
    strongest
        Index of the test that weighs most in it: the least p over its weight.
    """

    log10_p: float
    strongest: int


def cauchy_combination(log10_p: Sequence[float], weights: Sequence[float]) -> CombinedTest:
    """Combine p-values by the weighted mean of their Cauchy quantiles.

    The statistic Σ w_i cot(π p_i) has a Cauchy tail under the null for any weights that sum to 1
    and, in the limit of small p, for any dependence between the tests. It is never larger than
    Bonferroni's p-value by more than rounding at small p, and smaller where several tests agree.

    Parameters
    ----------
    log10_p
        Decimal logarithms of p-values, ≤ 0, one at least.
    weights
        Positive, one a test; they are divided by their sum.

    Returns
    -------
    CombinedTest

    Raises
    ------
    InputError
        If there is no test, the lengths differ, a weight is not positive, or a p-value not ≤ 0.

    References
    ----------
    Y. Liu and J. Xie, "Cauchy combination test", J. Am. Stat. Assoc. 115 (2020) 393-402, theorem 1.

    Examples
    --------
    >>> round(cauchy_combination([-2.0, -2.0], [1.0, 1.0]).log10_p, 6)
    -2.0
    >>> cauchy_combination([-4000.0, -0.1], [1.0, 3.0])
    CombinedTest(log10_p=-3999.39794..., strongest=0)
    """
    if not log10_p or len(log10_p) != len(weights):
        raise InputError(
            f"{len(log10_p)} p-values and {len(weights)} weights cannot be combined",
            hint="give one test at least, and a weight for each",
        )
    if min(weights) <= 0 or not all(value <= 0 for value in log10_p):
        raise InputError(
            "weights must be positive, and log10_p logarithms of probabilities",
            hint="leave out tests of no weight",
        )
    total = sum(weights)
    shares = [weight / total for weight in weights]
    score = [value - math.log10(share) for value, share in zip(log10_p, shares, strict=True)]
    strongest = min(range(len(score)), key=score.__getitem__)
    # The least p of all is the unit of the others' 1/p, since its own 1/p may overflow.
    unit = min(log10_p)
    if unit < math.log10(_SMALL):
        # All tests count, also those that are not small: one of 2e-8 next to one of 1e-9 does.
        mean = sum(
            share * _in_units(value, unit) for value, share in zip(log10_p, shares, strict=True)
        )
        return CombinedTest(min(0.0, unit - math.log10(mean)), strongest)
    statistic = sum(share * _cotangent(value) for value, share in zip(log10_p, shares, strict=True))
    return CombinedTest(math.log10(math.atan2(1.0, statistic) / math.pi), strongest)


def _cotangent(log10_p: float) -> float:
    return 1 / math.tan(math.pi * min(10.0**log10_p, _LARGEST))


def _in_units(log10_p: float, unit: float) -> float:
    """π cot(πp) over 10^-unit, for p that may underflow."""
    if log10_p < math.log10(_SMALL):
        return 10.0 ** (unit - log10_p)
    return math.pi * _cotangent(log10_p) * 10.0**unit
