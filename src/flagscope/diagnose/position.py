"""Relative position of the dominant write and read spaces of one pair."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    NoisyMap,
    attainable_overlap,
    exact_intersection,
    flag_defect,
    forced_dimension,
    leading_angles,
)
from flagscope.geometry.intersection import LARGEST_TOLERANCE
from flagscope.null import (
    count_beyond_chance,
    largest_cosine_significance,
    largest_cosine_threshold,
)

# Level at which the largest cosine is called beyond chance.
LEVEL = 0.01
# Where chance brings a cosine beyond this in one of a hundred, no other can be distinguished.
_POWERLESS = 0.999
# Chance of sines as small as the storage error, from which on an intersection is not exact but
# open. A report holds hundreds of pairs, and "exact" is not a matter of error rates.
_EXACT_LOG10_P = -6.0


@dataclass(frozen=True)
class DominantPosition:
    """Relative position of the top-r1 write space V and the top-r2 read space U of one pair.

    Attributes
    ----------
    rank_write, rank_read
        r1 and r2.
    cosines
        The min(r1, r2) principal cosines, descending; max(0, r1+r2-d) of them are 1 by dimension.
    overlap
        Σ cos².
    exact
        dim(V ∩ U) beyond what the dimensions force, to storage precision; None where the storage
        noise, or chance, leaves it open.
    beyond_chance
        Cosines beyond chance at the 1 % level of the largest, the exact ones included and the
        forced ones not; None where that cannot be tested.
    status
        "ok", or why one of the two is None.
    """

    rank_write: int
    rank_read: int
    cosines: Float[Tensor, " k"]
    overlap: float
    exact: int | None
    beyond_chance: int | None
    status: str

    @property
    def flag_defect(self) -> float:
        """min(r1, r2) - Σ cos²: zero iff the smaller space lies in the larger."""
        return flag_defect(self.overlap, rank_write=self.rank_write, rank_read=self.rank_read)


def dominant_position(
    write: NoisyMap, read: NoisyMap, cosines: Float[Tensor, "p q"], r1: int, r2: int
) -> DominantPosition:
    """Principal cosines, overlap and intersection dimensions of the top-r1 and top-r2 spaces.

    Parameters
    ----------
    write, read
        W1, shape (d, m1), and W2ᵀ, shape (d, m2).
    cosines
        Inner products of the left singular vectors of W1 with the right ones of W2.
    r1, r2
        Dimensions, at least 1.

    References
    ----------
    Johnstone, Ann. Stat. 36 (2008) 2638-2716, for the largest cosine under the null; the angles are
    those of `leading_angles`.
    """
    d = write.shape[0]
    forced = forced_dimension(r1, r2, d)
    overlap = attainable_overlap(float(cosines[:r1, :r2].square().sum()), r1, r2, d)
    angles = leading_angles(cosines, r1, r2, d)
    if forced == min(r1, r2):
        status = "cannot be tested: the dimensions force every cosine to 1"
        return DominantPosition(r1, r2, angles.cosines, overlap, None, None, status)
    exact, status = None, _open(write.turn(r1) + read.turn(r2), r1, r2, d)
    if status is None:
        exact = exact_intersection(write, read, angles, r1, r2)
    # A count never starts from an intersection that is not exact.
    beyond = count_beyond_chance(
        angles.cosines.tolist(), r1, r2, d, level=LEVEL, exact=forced + (exact or 0)
    )
    threshold = largest_cosine_threshold(r1, r2, d, level=LEVEL)
    if threshold is not None and threshold > _POWERLESS:
        beyond = exact or None
        status = f"cannot be tested: chance brings a cosine to {threshold:.7f} in one of a hundred"
    return DominantPosition(r1, r2, angles.cosines, overlap, exact, beyond, status or "ok")


def _open(tolerance: float, r1: int, r2: int, d: int) -> str | None:
    """Reason why no exact intersection can be found at this tolerance of sines, or None."""
    if tolerance > LARGEST_TOLERANCE:
        return f"open: rounding of the stored weights may turn the spaces by {tolerance:.2g}"
    chance = largest_cosine_significance(
        (1 - tolerance**2) ** 0.5, r1, r2, d, sine=tolerance
    ).log10_p
    if chance is None or chance > _EXACT_LOG10_P:
        return (
            f"open: spaces of dimensions {r1} and {r2} in R^{d} come as near as storage rounding, "
            f"a sine of {tolerance:.2g}, by chance"
        )
    return None
