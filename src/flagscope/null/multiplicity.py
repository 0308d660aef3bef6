"""False-discovery control over the tests of a scan, in logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flagscope.errors import InputError


@dataclass(frozen=True)
class AdjustedP:
    """Adjusted p-values, in the order of the input; None where the input was None.

    Attributes
    ----------
    p
        Adjusted p-values; 0.0 where they underflow.
    log10_p
        Their decimal logarithms.
    """

    p: tuple[float | None, ...]
    log10_p: tuple[float | None, ...]


def false_discovery_adjustment(
    log10_p: Sequence[float | None],
    *,
    method: Literal["bh", "by"] = "bh",
    tests: int | None = None,
) -> AdjustedP:
    """Benjamini-Hochberg or Benjamini-Yekutieli adjusted p-values from log10 p.

    Calling significant what has an adjusted value of at most q keeps the expected fraction of false
    discoveries at q: for independent or positively dependent tests ("bh"), or under any dependence
    ("by", larger by 1 + 1/2 + … + 1/n).

    Parameters
    ----------
    log10_p
        Decimal logarithms of p-values, ≤ 0; None for a test that was not possible, which is left
        out of the count.
    method
        "bh" or "by".
    tests
        Number of tests, where some are not listed: those count as if they came last, so that an
        adjusted value is never too small.

    Returns
    -------
    AdjustedP

    Raises
    ------
    InputError
        If a value is positive or NaN, the method is unknown, or more are listed than were tested.

    References
    ----------
    Y. Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289-300; Y. Benjamini and D.
    Yekutieli, Ann. Stat. 29 (2001) 1165-1188, theorem 1.3.

    Examples
    --------
    >>> false_discovery_adjustment([-4000.0, None, -1.0]).log10_p
    (-3999.69897..., None, -1.0)
    """
    if method not in ("bh", "by"):
        raise InputError(f"method = {method!r} is not known", hint="use 'bh' or 'by'")
    tested = [i for i, value in enumerate(log10_p) if value is not None]
    values = np.array([log10_p[i] for i in tested], dtype=np.float64)
    if not (values <= 0.0).all():
        raise InputError(
            "log10_p must hold logarithms of probabilities, all ≤ 0 and not NaN",
            hint="pass log10(p), and None where a test was not possible",
        )
    n = len(tested) if tests is None else tests
    if n < len(tested):
        raise InputError(
            f"{len(tested)} tests are listed, and tests is {n}", hint="count those listed as well"
        )
    adjusted_p: list[float | None] = [None] * len(log10_p)
    adjusted_log: list[float | None] = [None] * len(log10_p)
    if tested:
        rank = np.arange(1, len(tested) + 1)
        order = np.argsort(values, kind="stable")
        factor = n * (1.0 / np.arange(1, n + 1)).sum() if method == "by" else float(n)
        scaled = values[order] + np.log10(factor / rank)
        # Monotone: no larger than the adjusted value of any larger p.
        monotone = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 0.0)
        for position, value in zip(order, monotone.tolist(), strict=True):
            adjusted_log[tested[position]] = value
            adjusted_p[tested[position]] = 10.0**value
    return AdjustedP(tuple(adjusted_p), tuple(adjusted_log))
