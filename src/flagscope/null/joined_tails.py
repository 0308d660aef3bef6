"""Tails of a law of Pearson's system, continued far out by those of another law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from flagscope.null.pearson import PearsonLaw, pearson_law

# Tail from which the other law takes over, and halvings with which the place is found.
_JOINED = math.log(1e-4)
_BISECTIONS = 50


@dataclass(frozen=True)
class JoinedTails:
    """Pearson's law between `low` and `high`, and another law's tails times a constant outside.

    Attributes
    ----------
    mean, sd, mirrored, pearson
        Pearson's law, standardised, and mirrored where the skewness is negative.
    outer
        Natural logarithms of the lower and upper tail of the other law.
    below, above
        Logarithms of the constants, with which both laws agree at `low` and at `high`.
    """

    mean: float
    sd: float
    mirrored: bool
    pearson: PearsonLaw
    outer: Callable[[float], tuple[float, float]]
    low: float = -math.inf
    high: float = math.inf
    below: float = 0.0
    above: float = 0.0

    def log_tails(self, x: float) -> tuple[float, float]:
        """Natural logarithms of the lower and upper tail at a point."""
        if self.low < x < self.high:
            return self.pearson_tails(x)
        log_cdf, log_sf = self.outer(x)
        if x <= self.low:
            log_cdf += self.below
            return log_cdf, math.log1p(-math.exp(log_cdf))
        log_sf += self.above
        return math.log1p(-math.exp(log_sf)), log_sf

    def pearson_tails(self, x: float) -> tuple[float, float]:
        """The same of Pearson's law alone."""
        z = (x - self.mean) / self.sd
        log_cdf, log_sf = self.pearson.log_tails(-z if self.mirrored else z)
        return (log_sf, log_cdf) if self.mirrored else (log_cdf, log_sf)

    def joint(self, outside: float, side: int) -> float:
        """Point between the mean and `outside` at which the tail of Pearson's law is 1e-4."""
        inside = self.mean
        for _ in range(_BISECTIONS):
            middle = 0.5 * (inside + outside)
            if self.pearson_tails(middle)[side] > _JOINED:
                inside = middle
            else:
                outside = middle
        return inside


def joined_tails(
    *,
    mean: float,
    sd: float,
    skewness: float,
    kurtosis: float,
    outer: Callable[[float], tuple[float, float]],
    lowest: float,
    highest: float,
) -> JoinedTails:
    """The law of Pearson's system with four moments down to tails of 1e-4, then another law.

    Parameters
    ----------
    mean, sd, skewness, kurtosis
        The moments; the kurtosis of the normal law is 3.
    outer
        Natural logarithms of the lower and upper tail of the other law at a point.
    lowest, highest
        Points between which both joints lie.

    Examples
    --------
    >>> from flagscope.null.tails import log_pearson3_tails
    >>> law = joined_tails(
    ...     mean=0.0, sd=1.0, skewness=0.5, kurtosis=3.375, lowest=-100.0, highest=100.0,
    ...     outer=lambda z: log_pearson3_tails(z, 0.5),
    ... )
    >>> round(math.exp(law.log_tails(law.high)[1]) * 1e4, 6)
    1.0
    """
    pearson = pearson_law(abs(skewness), kurtosis)
    law = JoinedTails(mean, sd, skewness < 0.0, pearson, outer)
    low, high = law.joint(lowest, 0), law.joint(highest, 1)
    return replace(
        law,
        low=low,
        high=high,
        below=law.pearson_tails(low)[0] - outer(low)[0],
        above=law.pearson_tails(high)[1] - outer(high)[1],
    )
