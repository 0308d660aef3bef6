"""False-discovery control over the tests of a scan, in logarithms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flagscope.errors import InputError

_NO_LOGARITHMS = "log10_p must hold logarithms of probabilities, all ≤ 0 and not NaN"
_NO_LOGARITHMS_HINT = "pass log10(p), and None where a test was not possible"


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
        raise InputError(_NO_LOGARITHMS, hint=_NO_LOGARITHMS_HINT)
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


@dataclass(frozen=True)
class FamilyAdjustedP:
    """Adjusted p-values of the tests of one report, in the order of the input.

    Attributes
    ----------
    p_adjusted
        Weighted Benjamini-Hochberg: calling significant what is at most q here keeps the expected
        share of false discoveries at q.
    p_adjusted_dependent
        The same by Benjamini and Yekutieli, for any dependence between the tests.
    p_familywise
        Weighted Bonferroni: what is at most q here contains a false claim with probability at most
        q, for any dependence.
    """

    p_adjusted: tuple[float | None, ...]
    p_adjusted_dependent: tuple[float | None, ...]
    p_familywise: tuple[float | None, ...]


def family_adjustment(
    log10_p: Sequence[float | None], kinds: Sequence[str], *, tests: Mapping[str, int]
) -> FamilyAdjustedP:
    """Adjust the tests of one report together, each kind of test with the same share of the level.

    A report holds few tests of some kinds and many of others: tens of layers, thousands of links.
    A test of a kind with n of them among N in G kinds weighs N/(G n), so that no kind takes the
    power of another, and the weights have the mean 1 that both procedures ask for.

    Parameters
    ----------
    log10_p
        Decimal logarithms of p-values, ≤ 0; None for a test that was not possible.
    kinds
        The kind of each.
    tests
        How many tests of each kind were made, those not listed included; these count as if they
        came last.

    Returns
    -------
    FamilyAdjustedP

    Raises
    ------
    InputError
        If a value is positive or NaN, the lengths differ, or more are listed than were made.

    References
    ----------
    C. R. Genovese, K. Roeder and L. Wasserman, "False discovery control with p-value weighting",
    Biometrika 93 (2006) 509-524; weights of Bonferroni's procedure: S. Holm, Scand. J. Stat. 6
    (1979) 65-70.

    Examples
    --------
    >>> adjusted = family_adjustment(
    ...     [-4.0, None, -1.0], ["pairs", "pairs", "links"], tests={"pairs": 1, "links": 1000})
    >>> [None if p is None else round(p, 6) for p in adjusted.p_familywise]
    [0.0002, None, 1.0]
    """
    if len(log10_p) != len(kinds):
        raise InputError(
            f"{len(log10_p)} p-values and {len(kinds)} kinds", hint="give the kind of each test"
        )
    if not all(p is None or p <= 0.0 for p in log10_p):
        raise InputError(_NO_LOGARITHMS, hint=_NO_LOGARITHMS_HINT)
    for kind in set(kinds):
        listed = sum(p is not None and k == kind for p, k in zip(log10_p, kinds, strict=True))
        if listed > tests.get(kind, 0):
            raise InputError(
                f"{listed} tests of kind {kind!r} are listed, and {tests.get(kind, 0)} were made",
                hint="count those listed as well",
            )
    made = {kind: count for kind, count in tests.items() if count > 0}
    every = sum(made.values())
    # Over its weight, a p-value enters both procedures as if all tests were alike.
    over = {kind: math.log10(len(made) * count / every) for kind, count in made.items()}
    weighted = [
        None if p is None else min(p + over[kind], 0.0)
        for p, kind in zip(log10_p, kinds, strict=True)
    ]
    familywise = [
        None if p is None else 10.0 ** min(p + math.log10(len(made) * made[kind]), 0.0)
        for p, kind in zip(log10_p, kinds, strict=True)
    ]
    return FamilyAdjustedP(
        false_discovery_adjustment(weighted, method="bh", tests=every).p,
        false_discovery_adjustment(weighted, method="by", tests=every).p,
        tuple(familywise),
    )
