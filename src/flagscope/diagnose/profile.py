"""Maps with the scale profile of their shared space divided out.

The Haar null needs one side in general position. Coordinates of unlike scale (gains, dead neurons,
heavy-tailed rows) break that on both sides at once: two maps that are large on the same coordinates
overlap without being aligned. The correlation matrices A_ij/√(A_ii A_jj) of independent rows know
nothing of their scales, so a claim of alignment must hold for them as well.

Row norms also vary by chance, and to divide that out as well would cost power. So the rows are
divided by a power s of their norms, 0 to 1: the part of the variance of A_ii that a Haar position
of A does not account for, as James and Stein shrink a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class RowScales:
    """Squared row norms A_ii of n maps, and what of their spread is beyond chance.

    Attributes
    ----------
    square
        A_ii, shape (n, d).
    alive
        Which coordinates are not zero, shape (n, d).
    power
        s in [0, 1], shape (n,): 0 where the spread is no larger than by chance.
    """

    square: Float[Tensor, "n d"]
    alive: Bool[Tensor, "n d"]
    power: Float[Tensor, " n"]

    @property
    def plain(self) -> Bool[Tensor, " n"]:
        """Whether a map has no profile: all coordinates alive, none of unlike scale."""
        return self.alive.all(-1) & (self.power == 0)


def row_scales(w: Float[Tensor, "n d m"], gram_square: Float[Tensor, " n"]) -> RowScales:
    """Measure the scale profile of the shared space in n maps.

    Parameters
    ----------
    w
        Maps with the shared space along the rows.
    gram_square
        ‖A‖_F² of their Gram matrices A = W Wᵀ.

    Returns
    -------
    RowScales
        For Haar Q the diagonal of QAQᵀ has Σ (A_ii - tr A/d)² = 2‖Ã‖²/(d+2) on average; with d the
        number of coordinates alive.

    References
    ----------
    W. James and C. Stein, "Estimation with quadratic loss", Proc. 4th Berkeley Symposium 1 (1961)
    361-379, for the shrinkage.

    Examples
    --------
    >>> w = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> scales = row_scales(w, torch.tensor([82.0]))
    >>> scales.alive.tolist(), round(float(scales.power), 3)
    ([[True, True, False]], 0.5)
    """
    square = torch.linalg.vector_norm(w, dim=-1).double().square()
    alive = square > 0
    count = alive.sum(-1).clamp_min(1)
    mean = square.sum(-1) / count
    spread = ((square - mean[:, None]).square() * alive).sum(-1)
    chance = 2 * (gram_square.double() - count * mean.square()).clamp_min(0) / (count + 2)
    # A spread that is round-off of the sums is none.
    floor = (count * mean.square()) * 16 * torch.finfo(torch.float64).eps
    known = spread > floor
    power = torch.where(known, 1 - chance / torch.where(known, spread, 1), 0).clamp(0, 1)
    return RowScales(square, alive, power)


def without_profile(
    w: Float[Tensor, "d m"], square: Float[Tensor, " d"], power: float
) -> Float[Tensor, "d m"]:
    """W with its rows over the power `power` of their norms; no row may be zero.

    Examples
    --------
    >>> without_profile(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([25.0, 4.0]), 1.0)
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    return w * square.pow(-power / 2)[:, None].to(w.dtype)


def diagonal_share(square: Float[Tensor, " d"], centred_square: float) -> float:
    """The part of ‖Ã‖² on the diagonal, Σ (A_ii - tr A/d)²/‖Ã‖².

    Examples
    --------
    >>> diagonal_share(torch.tensor([2.0, 0.0]), 2.0)
    1.0
    """
    if centred_square <= 0:
        return 0.0
    spread = float((square - square.mean()).square().sum())
    return min(1.0, spread / centred_square)


def spread_ratio(write_share: float, read_share: float, d: int) -> float:
    """Spread of ⟨Ã, B̃⟩ at given diagonal shares, in units of its Haar value.

    Where the diagonals are known to be flatter than in a Haar position, more of the two matrices
    lies off the diagonal and meets there. Under permutations and signs of the coordinates the
    variance is ‖Ã‖²‖B̃‖² (f_A f_B/(d-1) + 2(1-f_A)(1-f_B)/(d(d-1))); with the Haar shares
    f = 2/(d+2) this is the Haar variance 2‖Ã‖²‖B̃‖²/((d-1)(d+2)).

    Examples
    --------
    >>> round(spread_ratio(2 / 18, 2 / 18, 16), 12), round(spread_ratio(0.0, 0.0, 16) ** 2, 12)
    (1.0, 1.125)
    """
    inside = write_share * read_share
    outside = 2 * (1 - write_share) * (1 - read_share) / d
    return ((inside + outside) * (d + 2) / 2) ** 0.5
