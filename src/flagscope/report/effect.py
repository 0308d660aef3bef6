"""How far from chance a number lies: one scale for all kinds of findings, and what is too small.

A pair of wide maps is tested so sharply that a correlation of 0.01 can be significant. Such numbers
are counted and shown, but they are remarks: the floors here are about size, not about chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flagscope.observables import CORRELATION_FLOOR, PAIR_OBSERVABLE, RATIO_FLOOR
from flagscope.records import PairRecord
from flagscope.report.wording import measured, number

STRONG = math.log(2)  # twice chance, half of it, or a correlation of 0.6
LARGEST = 10.0  # of an effect: a ratio of 0 and a correlation of 1 have no finite one

FLOORS = (
    f"A finding needs ρ at least {CORRELATION_FLOOR} from 0, an overlap ratio (or R) at least "
    f"{RATIO_FLOOR:.0%} from 1 (or a tenth of the way to the limit, where the ranks leave less "
    f"room), C at least {RATIO_FLOOR:.0%} above or below 1; what is significant but smaller is a "
    "remark."
)

ORDER = (
    "Strong findings come first, then notable ones, what is missing, and remarks; findings on the "
    "gauge come last. Each of these is sorted by effect: |ln(x / chance)| for a ratio x, atanh|ρ| "
    "for a correlation, of the median (or the one number) that the sentence prints. Strong "
    "findings are functional, concern at least half of their kind, and have an effect of at least "
    f"{STRONG:.2f}: twice chance or half of it, or |ρ| = 0.6."
)


@dataclass(frozen=True)
class Effect:
    """The size of a finding.

    Parameters
    ----------
    size
        |ln(x / chance)| of a ratio, atanh|ρ| of a correlation; at most 10.
    text
        The same with the number that it is made of, which the finding's sentence prints.
    """

    size: float
    text: str


def ratio_effect(ratio: float) -> Effect:
    """The effect of a number in units of chance, of the number as it is printed.

    Examples
    --------
    >>> ratio_effect(2.0).text, ratio_effect(0.4996).text, ratio_effect(0.0).size
    ('effect 0.69 = |ln 2|', 'effect 0.69 = |ln 0.500|', 10.0)
    """
    shown = float(f"{ratio:.3g}")
    size = min(LARGEST, abs(math.log(shown))) if shown > 0 else LARGEST
    return Effect(size, f"effect {measured(size, 2)} = |ln {number(ratio)}|")


def correlation_effect(rho: float) -> Effect:
    """The effect of a correlation, of the number as it is printed (Fisher's transformation).

    Examples
    --------
    >>> correlation_effect(-0.37).text, correlation_effect(1.0).size
    ('effect 0.39 = atanh 0.370', 10.0)
    """
    shown = abs(float(f"{rho:.3g}"))
    size = min(LARGEST, math.atanh(shown)) if shown < 1 else LARGEST
    return Effect(size, f"effect {measured(size, 2)} = atanh {number(abs(rho))}")


def sizable(pair: PairRecord, observable: str) -> bool:
    """Whether C or ρ of a pair lies far enough from chance to be a finding.

    Parameters
    ----------
    pair
        The pair; a missing number is never sizable.
    observable
        ``gram_correlation`` or ``commutator_ratio``.

    Returns
    -------
    bool
        |ρ| ≥ 0.1; |ln C| ≥ ln 1.1.
    """
    value, floor = getattr(pair, observable), PAIR_OBSERVABLE[observable].floor
    if value is None or floor is None:
        return False
    if observable == "gram_correlation":
        return abs(value) >= floor
    return value <= 0 or abs(math.log(value)) >= math.log1p(floor)


def sizable_ratio(ratio: float, rank_write: int, rank_read: int, d: int) -> bool:
    """Whether an overlap ratio of spaces of given dimensions lies far enough from 1.

    Returns
    -------
    bool
        |ratio - 1| ≥ 0.1, or a tenth of what the dimensions allow where that is less.
    """
    room = _room(rank_write, rank_read, d, above=ratio > 1)
    return abs(ratio - 1) >= RATIO_FLOOR * min(1.0, room)


def _room(rank_write: int, rank_read: int, d: int, *, above: bool) -> float:
    """How far from 1 the overlap ratio of these ranks can lie."""
    if not rank_write * rank_read:
        return 1.0
    if above:
        return d / max(rank_write, rank_read) - 1
    return 1 - forced_dimension(rank_write, rank_read, d) * d / (rank_write * rank_read)


def forced_dimension(rank_write: int, rank_read: int, d: int) -> int:
    """The dimension in which two subspaces of R^d meet at least, whatever the weights are.

    As `flagscope.geometry.forced_dimension`, which a report cannot import: it needs no tensors.

    Examples
    --------
    >>> forced_dimension(6, 5, 8), forced_dimension(2, 5, 8)
    (3, 0)
    """
    return max(0, rank_write + rank_read - d)
