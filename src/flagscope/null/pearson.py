"""Pearson's system of laws, standardised, from four moments: logarithms of both tails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flagscope.null.tails import log_beta_tails, log_pearson3_tails

# At this curvature the parameters of a law are beyond 1e7: it is one of type III.
_TYPE_III = 1e-7
# An integrand this many e-folds below its maximum adds nothing to a double.
_NEGLIGIBLE = 45.0
_NODES = 128
_BISECTIONS = 60


@dataclass(frozen=True)
class PearsonLaw:
    """A law of Pearson's system with mean 0 and variance 1.

    Attributes
    ----------
    kind
        Type "I" is a Beta law on an interval, "VI" the law of its odds, "III" a gamma law (normal
        without skewness), "IV" has the whole line.
    origin, width
        Of the variable in which the law has its usual form: (z - origin) / width.
    first, second
        Parameters of the Beta law of types I and VI; exponent and slope of type IV; skewness of
        type III.
    lower, upper
        Ends of the law, in standard deviations.
    """

    kind: Literal["I", "III", "IV", "VI"]
    origin: float
    width: float
    first: float
    second: float
    lower: float
    upper: float

    def log_tails(self, z: float) -> tuple[float, float]:
        """Natural logarithms of the lower and upper tail; -inf at and beyond an end of the law."""
        if z <= self.lower:
            return -math.inf, 0.0
        if z >= self.upper:
            return 0.0, -math.inf
        x = (z - self.origin) / self.width
        if self.kind == "I":
            return log_beta_tails(x, self.first, self.second)
        if self.kind == "VI":
            return log_beta_tails(x / (1.0 + x), self.first, self.second)
        if self.kind == "III":
            return log_pearson3_tails(z, self.first)
        return _log_type4_tails(math.atan(x), self.first, self.second)


@lru_cache(maxsize=65536)
def pearson_law(skewness: float, kurtosis: float) -> PearsonLaw:
    """The law of Pearson's system with these standardised moments.

    Its density p has p'/p = -(c z + c_1) / (c_0 + c_1 z + c_2 z²).

    Parameters
    ----------
    skewness
        Third standardised moment, not negative.
    kurtosis
        Fourth standardised moment, above 1 + skewness².

    Returns
    -------
    PearsonLaw
        Of type I where the quadratic has a root on either side of the mean, of type VI where both
        lie below, of type IV where there is none, of type III where it is linear.

    References
    ----------
    K. Pearson, Phil. Trans. R. Soc. A 216 (1916) 429-457; N. Johnson, S. Kotz and N. Balakrishnan,
    Continuous Univariate Distributions 1 (1994), section 12.4.1.

    Examples
    --------
    >>> pearson_law(2.0, 9.0).kind, pearson_law(0.0, 1.8).kind, pearson_law(0.0, 4.0).kind
    ('III', 'I', 'IV')
    >>> uniform = pearson_law(0.0, 1.8)
    >>> [round(math.exp(tail), 6) for tail in uniform.log_tails(0.75 * 3**0.5)]
    [0.875, 0.125]
    """
    square = skewness * skewness
    # All multiplied by what the usual form divides by, which is 0 for the uniform law.
    scale = 10.0 * kurtosis - 12.0 * square - 18.0
    c0 = 4.0 * kurtosis - 3.0 * square
    c1 = skewness * (kurtosis + 3.0)
    c2 = 2.0 * kurtosis - 3.0 * square - 6.0
    if abs(c2) < _TYPE_III * c0:
        return _type3(skewness)
    center, discriminant = -c1 / (2.0 * c2), c1 * c1 - 4.0 * c0 * c2
    half = math.sqrt(abs(discriminant)) / (2.0 * abs(c2))
    if discriminant < 0.0:
        # p ∝ (1 + x²)^{-m} exp(-ν arctan x), x = (z - center) / half
        exponent, slope = scale / (2.0 * c2), (c1 + scale * center) / (c2 * half)
        return PearsonLaw("IV", center, half, exponent, slope, -math.inf, math.inf)
    low, high = center - half, center + half
    at_low = (scale * low + c1) / (2.0 * half * c2)
    at_high = -(scale * high + c1) / (2.0 * half * c2)
    if c2 < 0.0:
        return PearsonLaw("I", low, 2.0 * half, at_low + 1.0, at_high + 1.0, low, high)
    first, second = at_high + 1.0, -at_low - at_high - 1.0
    return PearsonLaw("VI", high, 2.0 * half, first, second, high, math.inf)


def _type3(skewness: float) -> PearsonLaw:
    # The gamma law's own end is taken care of by its tails.
    return PearsonLaw("III", 0.0, 1.0, skewness, 0.0, -math.inf, math.inf)


def _log_type4_tails(theta: float, exponent: float, slope: float) -> tuple[float, float]:
    """Log tails at θ = arctan x: the density in θ is ∝ cos^{2m-2}θ e^{-νθ}, log-concave."""
    power = 2.0 * exponent - 2.0
    mode = math.atan(-slope / power) if power > 0.0 else 0.0
    whole = np.logaddexp(
        _log_integral(mode, 1.0, power, slope), _log_integral(mode, -1.0, power, slope)
    )
    # The tail away from the mode keeps its digits; the other follows from it.
    side = 1.0 if theta >= mode else -1.0
    log_tail = min(_log_integral(theta, side, power, slope) - float(whole), -math.log(2.0) * 1e-12)
    rest = math.log(-math.expm1(log_tail))
    return (rest, log_tail) if side > 0.0 else (log_tail, rest)


def _log_integral(theta: float, side: float, power: float, slope: float) -> float:
    """Log of the integral of cos^power θ e^{-slope θ} from θ outward to side · π/2."""

    def log_density(x: NDArray[np.float64] | float) -> NDArray[np.float64] | np.float64:
        return power * np.log(np.cos(x)) - slope * x

    start, low, high = float(log_density(theta)), 0.0, 0.5 * math.pi - side * theta
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        cosine = math.cos(theta + side * middle)
        dropped = (
            cosine <= 0.0
            or start - power * math.log(cosine) + slope * (theta + side * middle) > _NEGLIGIBLE
        )
        low, high = (low, middle) if dropped else (middle, high)
    x, weight = unit_nodes(_NODES)
    values = log_density(theta + side * low * x) - start
    return start + math.log(float((weight * np.exp(values)).sum()) * low)


@lru_cache(maxsize=2)
def unit_nodes(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes and weights on (0, 1)."""
    x, weight = np.polynomial.legendre.leggauss(count)
    return 0.5 * (1.0 + x), 0.5 * weight
