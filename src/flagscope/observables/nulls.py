"""Ranges of a pair's numbers under chance, read from the pair's record."""

from __future__ import annotations

from flagscope.observables.observable import Band
from flagscope.records import NullValues, PairRecord

UNTESTABLE = "cannot be tested"
"""Start of the status of an intersection that cannot be distinguished from random position."""
_CENTRAL_95 = 1.959963984540054  # of a normal variable, in standard deviations


def untestable(pair: PairRecord) -> str:
    """Reason why no intersection can be tested; empty where one can, or one is exact."""
    status = pair.intersection_status or ""
    known = pair.intersection_beyond_chance is not None
    return status if status.startswith(UNTESTABLE) and not known else ""


def commutator_null(pair: PairRecord) -> Band | None:
    """Mean 1, with the interval that the record states."""
    null = _null_of(pair)
    if null is None or null.commutator_ratio_interval is None:
        return None
    low, high = null.commutator_ratio_interval
    return Band(low, 1.0, high)


def correlation_null(pair: PairRecord) -> Band | None:
    """Mean 0; ±1.96 standard deviations."""
    null = _null_of(pair)
    return None if null is None else central(0.0, null.gram_correlation_sd)


def defect_null(pair: PairRecord) -> Band | None:
    """The ratio of means, ±1.96 standard deviations, not below 0."""
    null = _null_of(pair)
    if null is None:
        return None
    return central(null.commutation_defect, null.commutation_defect_sd, floor=0.0)


def overlap_null(pair: PairRecord) -> Band | None:
    """Mean 1; ±1.96 standard deviations, not below 0."""
    null = _null_of(pair)
    return None if null is None else central(1.0, null.overlap_ratio_sd, floor=0.0)


def intersection_null(pair: PairRecord) -> Band | None:
    """0, as what dimensions force is not counted; None where that cannot be tested."""
    return None if _null_of(pair) is None or untestable(pair) else Band(0.0, 0.0, 0.0)


def flag_defect_null(pair: PairRecord) -> Band | None:
    """Mean min(r1, r2)(1 - max(r1, r2)/d), with the spread of the overlap ratio."""
    null, ranks = _null_of(pair), (pair.effective_rank_write, pair.effective_rank_read)
    if null is None or ranks[0] is None or ranks[1] is None:
        return None
    small, large = sorted((ranks[0], ranks[1]))
    sd = null.overlap_ratio_sd
    mean = small * (1 - large / pair.d)
    return central(mean, None if sd is None else sd * small * large / pair.d, floor=0.0)


def kernel_null(pair: PairRecord) -> Band | None:
    """max(0, rank W1 - rank W2), the value of maps in general position."""
    if pair.rank_write is None or pair.rank_read is None:
        return None
    value = max(0, pair.rank_write - pair.rank_read)
    return Band(value, value, value)


def _null_of(pair: PairRecord) -> NullValues | None:
    """The null that the record states; None where the pair was not measured."""
    return pair.null if pair.status == "ok" else None


def central(mean: float | None, sd: float | None, *, floor: float | None = None) -> Band | None:
    """Mean ±1.96 standard deviations, not below a floor; None where either is not known."""
    if mean is None or sd is None:
        return None
    low = mean - _CENTRAL_95 * sd
    return Band(low if floor is None else max(floor, low), mean, mean + _CENTRAL_95 * sd)
