"""How far from chance a significant number must lie to be told as a finding.

A pair of wide maps is tested so sharply that a correlation of 0.01 can be significant. Such numbers
are counted and shown, but they are remarks: the floors here are about size, not about chance.
"""

from __future__ import annotations

import math

from flagscope.diagnose.records import PairRecord

CORRELATION_FLOOR = 0.1  # of ρ: 1 % of the squared norm, the usual bound of a small correlation
RATIO_FLOOR = 0.1  # of the overlap ratio and of C: a tenth more, or less, than by chance

FLOORS = (
    f"A finding about pairs needs ρ at least {CORRELATION_FLOOR} from 0, an overlap ratio at least "
    f"{RATIO_FLOOR:.0%} from 1 (or a tenth of the way to the limit, where the ranks leave less "
    f"room), C at least {RATIO_FLOOR:.0%} above or below 1; what is significant but smaller is a "
    "remark."
)


def sizable(pair: PairRecord, observable: str) -> bool:
    """Whether a number of a pair lies far enough from chance to be told as a finding.

    Parameters
    ----------
    pair
        The pair; a missing number is never sizable.
    observable
        ``gram_correlation``, ``overlap_ratio`` or ``commutator_ratio``.

    Returns
    -------
    bool
        |ρ| ≥ 0.1; |ratio - 1| ≥ 0.1 for overlaps, or a tenth of what the ranks allow where that is
        less; |ln C| ≥ ln 1.1.
    """
    value = getattr(pair, observable)
    if value is None:
        return False
    if observable == "gram_correlation":
        return abs(value) >= CORRELATION_FLOOR
    if observable == "commutator_ratio":
        return value <= 0 or abs(math.log(value)) >= math.log1p(RATIO_FLOOR)
    return abs(value - 1) >= RATIO_FLOOR * min(1.0, _room(pair, above=value > 1))


def _room(pair: PairRecord, *, above: bool) -> float:
    """How far from 1 the overlap ratio of these ranks can lie."""
    ranks = pair.effective_rank_write, pair.effective_rank_read
    if ranks[0] is None or ranks[1] is None or not ranks[0] * ranks[1]:
        return 1.0
    if above:
        return pair.d / max(ranks[0], ranks[1]) - 1
    forced = max(0, ranks[0] + ranks[1] - pair.d)
    return 1 - forced * pair.d / (ranks[0] * ranks[1])
