"""What chance gives for each number of a pair, read from its record."""

from __future__ import annotations

from typing import NamedTuple

from flagscope.records import PairRecord
from flagscope.report.dominant import untestable

# Observables whose null the record carries or the dimensions give, in the order of display.
CALIBRATED = (
    "commutator_ratio",
    "gram_correlation",
    "commutation_defect",
    "overlap_ratio",
    "intersection_beyond_chance",
    "flag_defect",
    "intersection_exact",
    "kernel_intersection",
)
_CENTRAL_95 = 1.959963984540054  # of a normal variable, in standard deviations


class Band(NamedTuple):
    """Where chance puts a number: its mean, and the central 95 % interval (or the mean twice)."""

    low: float
    mean: float
    high: float


def null_band(pair: PairRecord, observable: str) -> Band | None:
    """The null of one observable of a pair; None where no random model calibrates it.

    The overlap ratio, the Gram correlation and the commutation defect have normal intervals of
    ±1.96 standard deviations, cut off at 0 where a number cannot be negative; the commutator ratio
    has its own. Intersections are counted beyond what dimensions force, so that chance is 0, and
    have no null where they cannot be tested; a kernel intersection has the generic value
    max(0, rank W1 - rank W2). The flag defect has the mean min(r1, r2)(1 - max(r1, r2)/d).
    """
    if observable == "kernel_intersection":
        return _generic_kernel(pair)
    if pair.status != "ok" or pair.null is None:
        return None
    null = pair.null
    match observable:
        case "overlap_ratio":
            return _normal(1.0, null.overlap_ratio_sd, floor=0.0)
        case "gram_correlation":
            return _normal(0.0, null.gram_correlation_sd)
        case "commutation_defect":
            return _normal(null.commutation_defect, null.commutation_defect_sd, floor=0.0)
        case "commutator_ratio":
            interval = null.commutator_ratio_interval
            return None if interval is None else Band(interval[0], 1.0, interval[1])
        case "intersection_beyond_chance" | "intersection_exact":
            return None if untestable(pair) else Band(0.0, 0.0, 0.0)
        case "flag_defect":
            return _flag_defect(pair)
        case _:
            return None


def _normal(mean: float | None, sd: float | None, *, floor: float | None = None) -> Band | None:
    if mean is None or sd is None:
        return None
    low = mean - _CENTRAL_95 * sd
    return Band(low if floor is None else max(floor, low), mean, mean + _CENTRAL_95 * sd)


def _generic_kernel(pair: PairRecord) -> Band | None:
    if pair.rank_write is None or pair.rank_read is None:
        return None
    value = max(0, pair.rank_write - pair.rank_read)
    return Band(value, value, value)


def _flag_defect(pair: PairRecord) -> Band | None:
    if pair.effective_rank_write is None or pair.effective_rank_read is None:
        return None
    small, large = sorted((pair.effective_rank_write, pair.effective_rank_read))
    mean = small * (1 - large / pair.d)
    sd = None if pair.null is None else pair.null.overlap_ratio_sd
    return _normal(mean, None if sd is None else sd * small * large / pair.d, floor=0.0)
