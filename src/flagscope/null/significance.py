"""The outcome of a test against a null model: z, p and log10 p."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LN2 = math.log(2.0)
_LN10 = math.log(10.0)


@dataclass(frozen=True)
class Significance:
    """Outcome of one test.

    Attributes
    ----------
    z
        Distance from the null's mean in null standard deviations; None where the null has no
        spread.
    p
        p-value; 0.0 where it underflows, which is why `log10_p` is given with it.
    log10_p
        Decimal logarithm of the p-value; finite always.
    status
        "ok", or why the numbers are missing.

    Examples
    --------
    >>> Significance.two_sided(318.0, log_cdf=0.0, log_sf=-50568.7).log10_p
    -21961.4...
    """

    z: float | None
    p: float | None
    log10_p: float | None
    status: str = "ok"

    @classmethod
    def two_sided(cls, z: float, *, log_cdf: float, log_sf: float) -> Significance:
        """Twice the smaller tail; tails are natural logarithms."""
        log_p = min(0.0, _LN2 + min(log_cdf, log_sf))
        return cls(z=z, p=math.exp(log_p), log10_p=log_p / _LN10)

    @classmethod
    def one_sided(cls, z: float | None, *, log_tail: float) -> Significance:
        """The given tail, a natural logarithm."""
        log_p = min(0.0, log_tail)
        return cls(z=z, p=math.exp(log_p), log10_p=log_p / _LN10)

    @classmethod
    def undefined(cls, status: str) -> Significance:
        """No test is possible, and `status` says why."""
        return cls(z=None, p=None, log10_p=None, status=status)
