"""Relative position of the dominant write and read spaces of one pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import intersection_dimension, singular_space
from flagscope.geometry.intersection import LARGEST_TOLERANCE
from flagscope.null import count_beyond_chance

# Rounding of the singular values of a block of cosines, in units of roundoff: a bound that no block
# comes near (their error is a few units times the root of the size).
_COSINE_ERROR = 1000
# Blocks of cosines with as many rows and columns go by their Gram matrix.
_LARGE = 192
# Level at which the largest cosine is called beyond chance.
LEVEL = 0.01


@dataclass(frozen=True)
class DominantPosition:
    """How the top-r1 write space V and the top-r2 read space U of one pair lie.

    Attributes
    ----------
    rank_write, rank_read
        r1 and r2.
    cosines
        The min(r1, r2) principal cosines, descending; max(0, r1+r2-d) of them are 1 by dimension.
    overlap
        Σ cos².
    exact
        dim(V ∩ U) beyond what the dimensions force, or None where the storage noise leaves it
        open.
    beyond_chance
        Cosines beyond chance at the 1 % level of the largest, the exact ones included and the
        forced ones not.
    """

    rank_write: int
    rank_read: int
    cosines: Float[Tensor, " k"]
    overlap: float
    exact: int | None
    beyond_chance: int | None

    @property
    def flag_defect(self) -> float:
        """min(r1, r2) - Σ cos²: zero iff the smaller space lies in the larger."""
        return max(0.0, min(self.rank_write, self.rank_read) - self.overlap)


@dataclass(frozen=True)
class Noisy:
    """One map: its shape with the shared space first, its singular values (descending), the bound
    on its storage error, and a way to the map itself, which is rarely needed."""

    shape: tuple[int, int]
    sigma: Float[Tensor, " s"]
    delta: float
    matrix: Callable[[], Float[Tensor, "d m"]]

    def turn(self, rank: int) -> float:
        """Bound on the sine by which the storage error turns the top-`rank` space.

        δ over the gap below σ_rank, after Wedin (BIT 12, 1972); the gap is σ_rank itself for the
        whole range. The Gram matrices add their rounding.
        """
        last = float(self.sigma[rank - 1])
        below = float(self.sigma[rank]) if rank < len(self.sigma) else 0.0
        gap = last - min(below, last)
        return (self.delta / gap if gap > 0 else 1.0) + self.rounding(rank)

    def rounding(self, rank: int) -> float:
        """Error of the leading singular vectors by way of the Gram matrix, u·κ²."""
        ratio = float(self.sigma[0]) / float(self.sigma[rank - 1])
        return torch.finfo(self.sigma.dtype).eps * ratio**2


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
    values = _singular_values(block).clamp(max=1)
    exact = _exact(write, read, values, r1, r2) if forced < min(r1, r2) else 0
    known = forced + (exact or 0)
    beyond = count_beyond_chance(values.tolist(), r1, r2, d, level=LEVEL, exact=known)
    return DominantPosition(r1, r2, values, overlap, exact, beyond)


def _singular_values(block: Tensor) -> Tensor:
    """Of large blocks by the Gram matrix, a third of the work: cosines above 1e-4 keep eight
    digits, and those below are far from any threshold."""
    if min(block.shape) < _LARGE:
        return torch.linalg.svdvals(block)
    gram = block @ block.mT if block.shape[0] <= block.shape[1] else block.mT @ block
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(-1)


def _exact(write: Noisy, read: Noisy, cosines: Tensor, r1: int, r2: int) -> int | None:
    forced = max(0, r1 + r2 - write.shape[0])
    tolerance = write.turn(r1) + read.turn(r2)
    if tolerance > LARGEST_TOLERANCE:
        return None
    # A sine within the tolerance has its cosine above this, as the cosines are known.
    rounding = write.rounding(r1) + read.rounding(r2)
    least = (1 - tolerance**2) ** 0.5 - rounding - _COSINE_ERROR * torch.finfo(cosines.dtype).eps
    if int((cosines > least).sum()) <= forced:
        return 0
    v = singular_space(write.matrix(), side="left", rank=r1)
    u = singular_space(read.matrix(), side="left", rank=r2)
    count = intersection_dimension(v, u, tolerance=tolerance)
    return None if count.dimension is None else max(0, count.dimension - forced)
