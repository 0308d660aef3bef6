"""Relative position of the dominant write and read spaces of one pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    eigensystem,
    gram_singular_values,
    intersection_dimension,
    singular_space,
)
from flagscope.geometry.intersection import LARGEST_TOLERANCE
from flagscope.null import (
    count_beyond_chance,
    largest_cosine_significance,
    largest_cosine_threshold,
)

# Rounding of the singular values of a block of cosines, in units of roundoff: a bound that
# no block comes near (their error is a few units times the root of the size).
_BLOCK_ERROR = 1000
# The same for small sines, which are summed from overlaps that are small themselves.
_SINE_ERROR = 30
# Blocks of cosines with as many rows and columns go by their Gram matrix.
_LARGE = 192
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
        return max(0.0, min(self.rank_write, self.rank_read) - self.overlap)


@dataclass(frozen=True)
class Noisy:
    """What is known of one map.

    Attributes
    ----------
    shape
        The shared dimension first.
    sigma
        Singular values, descending.
    delta
        Estimate of the spectral norm of its storage error.
    roundoff
        Unit roundoff in which its singular vectors were computed.
    matrix
        Gives the map itself, which is rarely needed.
    """

    shape: tuple[int, int]
    sigma: Float[Tensor, " s"]
    delta: float
    roundoff: float
    matrix: Callable[[], Float[Tensor, "d m"]]

    def turn(self, rank: int) -> float:
        """Bound on the sine by which the storage error turns the top-`rank` space.

        δ over the gap below σ_rank, after Wedin (BIT 12, 1972); the gap is σ_rank itself for the
        whole range. The Gram matrices add their rounding.
        """
        last, below = self._edge(rank)
        gap = last - min(below, last)
        return (self.delta / gap if gap > 0 else 1.0) + self.rounding(rank)

    def rounding(self, rank: int) -> float:
        """Error of the leading singular vectors by way of the Gram matrix.

        u·κ² of the directions, and u·σ_1² over the gap of the squares for the turn at the edge, in
        which of `rank` directions only the last few have a part: one in general position has a
        share of 1/√rank of it (measured: 0.4 to 0.9 of that).
        """
        top, (last, below) = float(self.sigma[0]), self._edge(rank)
        gap = (last - min(below, last)) * (last + below)
        edge = 2 * top**2 / (gap * rank**0.5) if gap > 0 else 0.0
        return self.roundoff * ((top / last) ** 2 + edge)

    def _edge(self, rank: int) -> tuple[float, float]:
        below = float(self.sigma[rank]) if rank < len(self.sigma) else 0.0
        return float(self.sigma[rank - 1]), below


def dominant_position(
    write: Noisy, read: Noisy, cosines: Float[Tensor, "p q"], r1: int, r2: int
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
    Björck and Golub, Math. Comp. 27 (1973) 579-594, for cosines and sines; Johnstone, Ann. Stat.
    36 (2008) 2638-2716, for the largest cosine under the null.
    """
    d = write.shape[0]
    forced = max(0, r1 + r2 - d)
    block = cosines[:r1, :r2]
    # Rounding may carry the sum past what the dimensions allow.
    overlap = min(max(float(block.square().sum()), forced), min(r1, r2))
    sines = _sines(cosines, r1, r2, d)
    values = (
        _singular_values(block).clamp(max=1)
        if sines is None
        else (1 - sines.square()).clamp(0, 1).sqrt()
    )
    if forced == min(r1, r2):
        status = "cannot be tested: the dimensions force every cosine to 1"
        return DominantPosition(r1, r2, values, overlap, None, None, status)
    tolerance = write.turn(r1) + read.turn(r2)
    exact, status = None, _open(tolerance, r1, r2, d)
    if status is None:
        exact = (
            _exact(write, read, values, r1, r2, tolerance)
            if sines is None
            else _exact_of_sines(write, read, sines, r1, r2, tolerance, cosines.dtype)
        )
    # A count never starts from an intersection that is not exact.
    beyond = count_beyond_chance(
        values.tolist(), r1, r2, d, level=LEVEL, exact=forced + (exact or 0)
    )
    threshold = largest_cosine_threshold(r1, r2, d, level=LEVEL)
    if threshold is not None and threshold > _POWERLESS:
        beyond = exact or None
        status = f"cannot be tested: chance brings a cosine to {threshold:.7f} in one of a hundred"
    return DominantPosition(r1, r2, values, overlap, exact, beyond, status or "ok")


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


def _singular_values(block: Tensor) -> Tensor:
    """Of large blocks by the Gram matrix, a third of the work: cosines above 1e-4 keep eight
    digits, and those below are far from any threshold."""
    if min(block.shape) < _LARGE:
        return torch.linalg.svdvals(block)
    return gram_singular_values(block)


def _sines(cosines: Tensor, r1: int, r2: int, d: int) -> Float[Tensor, " k"] | None:
    """All min(r1, r2) principal sines in float64, ascending, by way of an orthogonal complement.

    Where K holds a whole basis of R^d on the side of the larger space, what it has beyond that
    space spans the complement, and the overlaps with it have the sines as singular values: a
    smaller eigenproblem where the larger space is more than half of R^d, and sines that are good to
    roundoff where they are small. None where K does not hold it, or the smaller space is small.
    """
    if r1 > r2:
        cosines, r1, r2 = cosines.mT, r2, r1
    rest = d - r2
    if cosines.shape[1] < d or r1 < _LARGE:
        return None
    # The sines that are not among the singular values are zero, as dimensions force.
    forced = torch.zeros(max(0, r1 - rest), dtype=torch.float64, device=cosines.device)
    if rest == 0:
        return forced
    return torch.cat([forced, gram_singular_values(cosines[:r1, r2:]).flip(-1).clamp(max=1)])


def _exact_of_sines(
    write: Noisy,
    read: Noisy,
    sines: Tensor,
    r1: int,
    r2: int,
    tolerance: float,
    dtype: torch.dtype,
) -> int | None:
    """dim(V ∩ U) beyond what is forced: sines within what noise and rounding may turn."""
    forced = max(0, r1 + r2 - write.shape[0])
    # Sines end at the rounding of K, and as roots of Gram eigenvalues at the root of the roundoff.
    error = max(_SINE_ERROR * torch.finfo(dtype).eps, 4 * torch.finfo(torch.float64).eps ** 0.5)
    if int((sines <= tolerance + error).sum()) <= forced:
        return 0
    return _confirmed(write, read, r1, r2, forced)


def _exact(
    write: Noisy, read: Noisy, cosines: Tensor, r1: int, r2: int, tolerance: float
) -> int | None:
    forced = max(0, r1 + r2 - write.shape[0])
    # A sine within the tolerance has its cosine above this, as the cosines are known.
    rounding = write.rounding(r1) + read.rounding(r2)
    least = (1 - tolerance**2) ** 0.5 - rounding - _BLOCK_ERROR * torch.finfo(cosines.dtype).eps
    if int((cosines > least).sum()) <= forced:
        return 0
    return _confirmed(write, read, r1, r2, forced)


def _confirmed(write: Noisy, read: Noisy, r1: int, r2: int, forced: int) -> int | None:
    """dim(V ∩ U) beyond what is forced, from the maps themselves, in float64."""
    unit = torch.finfo(torch.float64).eps
    tolerance = sum(
        replace(map_, roundoff=min(unit, map_.roundoff)).turn(rank)
        for map_, rank in ((write, r1), (read, r2))
    )
    v, u = (_leading(map_, rank) for map_, rank in ((write, r1), (read, r2)))
    count = intersection_dimension(v, u, tolerance=tolerance)
    return None if count.dimension is None else max(0, count.dimension - forced)


def _leading(map_: Noisy, rank: int) -> Float[Tensor, "d r"]:
    """The top-`rank` space in float64: via the Gram matrix of a large map that was processed in
    float32, in a third of the time of its singular value decomposition."""
    wide = map_.matrix().double()
    if map_.roundoff > torch.finfo(torch.float64).eps:
        return eigensystem(wide[None]).vectors[0, :, :rank]
    return singular_space(wide, side="left", rank=rank)
