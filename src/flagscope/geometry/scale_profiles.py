"""Scale profiles: coordinates of the shared space whose scales are not alike.

The Haar null needs one side in general position. Coordinates of unlike scale (gains, dead neurons,
heavy-tailed rows) break that on both sides at once: two maps that are large on the same coordinates
overlap without being aligned. The correlation matrices A_ij/√(A_ii A_jj) of independent rows know
nothing of their scales, so a claim of alignment must hold for them as well. Row norms also vary by
chance, and to divide that out would cost power: it is done where the profiles are of a size, or of
a likeness, that chance does not give.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry.gram import gram
from flagscope.geometry.matrices import line_norms

# Spread of A_ii, in that of a Haar position, from which on it counts as a profile. Chance exceeds
# it in a tenth of the maps and less, and in both of two maps in one of a hundred pairs.
_UNEVEN = 1.5
# Standardised correlation of A_ii with B_ii from which on the profiles count as shared. Chance
# gives it in one of ten pairs; below, profiles move ρ by at most 2.3/√d of its spread.
_SHARED = 1.64
# Below, a flat diagonal leaves too little of a matrix for the Haar null to be near.
FEWEST = 8
# Factors of rows that float32 holds; those of smaller rows are applied in float64.
_LARGEST_FACTOR = 1e37


@dataclass(frozen=True)
class RowScales:
    """Squared row norms A_ii of n maps.

    Attributes
    ----------
    square
        A_ii, shape (n, d).
    alive
        Which coordinates are not zero, shape (n, d).
    uneven
        Whether their spread is larger than a Haar position gives, shape (n,).
    """

    square: Float[Tensor, "n d"]
    alive: Bool[Tensor, "n d"]
    uneven: Bool[Tensor, " n"]


def row_scales(
    w: Float[Tensor, "n d m"], gram_square: Float[Tensor, " n"] | None = None
) -> RowScales:
    """Measure the scale profile of the shared space in n maps.

    Parameters
    ----------
    w
        Maps with the shared space along the rows.
    gram_square
        ‖A‖_F² of their Gram matrices A = W Wᵀ, where it is known.

    Returns
    -------
    RowScales
        For Haar Q the diagonal of QAQᵀ has Σ (A_ii - tr A/d)² = 2‖Ã‖²/(d+2) on average, d being
        the number of coordinates alive: uniform points on a sphere have the fourth moment
        3/(d(d+2)).

    Examples
    --------
    >>> import torch
    >>> w = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> scales = row_scales(w, torch.tensor([82.0]))
    >>> scales.alive.tolist(), scales.uneven.tolist()
    ([[True, True, False]], [True])
    """
    if gram_square is None:
        gram_square = gram(w if w.shape[1] <= w.shape[2] else w.mT).square().sum((-2, -1))
    square = line_norms(w, dim=-1).double().square()
    alive = square > 0
    count = alive.sum(-1).clamp_min(1)
    mean = square.sum(-1) / count
    spread = ((square - mean[:, None]).square() * alive).sum(-1)
    chance = 2 * (gram_square.double() - count * mean.square()).clamp_min(0) / (count + 2)
    # A spread that is round-off of the sums is none.
    floor = count * mean.square() * 16 * torch.finfo(torch.float64).eps
    return RowScales(square, alive, (spread > floor) & (spread > _UNEVEN * chance))


@dataclass(frozen=True)
class Profiles:
    """What of the scales of n pairs could pass for alignment.

    Attributes
    ----------
    alive
        Coordinates that are alive in both maps, shape (n, d).
    dead
        Whether both maps have zero coordinates, shape (n,).
    unlike
        Whether the scales of both are uneven, or A_ii and B_ii correlated, shape (n,).
    """

    alive: Bool[Tensor, "n d"]
    dead: Bool[Tensor, " n"]
    unlike: Bool[Tensor, " n"]

    @property
    def any(self) -> Bool[Tensor, " n"]:
        """Whether there is something to divide out or to leave out."""
        return self.dead | self.unlike


def profiles(write: RowScales, read: RowScales) -> Profiles:
    """Compare the scales of the shared space in both maps of n pairs.

    Examples
    --------
    >>> import torch
    >>> alive, none = torch.ones(1, 5) > 0, torch.zeros(1) > 0
    >>> even = RowScales(torch.tensor([[1.0, 1.1, 0.9, 1.2, 0.8]]), alive, none)
    >>> other = RowScales(torch.tensor([[1.1, 0.9, 0.9, 1.0, 1.1]]), alive, none)
    >>> profiles(even, even).any.tolist(), profiles(even, other).any.tolist()
    ([True], [False])
    """
    alive = write.alive & read.alive
    count = alive.sum(-1)
    one, two = (_centred(side.square, alive, count) for side in (write, read))
    scale = one.square().sum(-1) * two.square().sum(-1)
    correlation = (one * two).sum(-1).abs() / torch.where(scale > 0, scale, 1).sqrt()
    shared = correlation * (count - 1).clamp_min(0).sqrt() > _SHARED
    return Profiles(
        alive,
        ~write.alive.all(-1) & ~read.alive.all(-1),
        (write.uneven & read.uneven) | shared,
    )


def _centred(square: Tensor, alive: Tensor, count: Tensor) -> Tensor:
    kept = square * alive
    return (kept - (kept.sum(-1) / count.clamp_min(1))[:, None]) * alive


def unit_rows(
    w: Float[Tensor, "*batch d m"], square: Float[Tensor, "*batch d"]
) -> Float[Tensor, "*batch d m"]:
    """W with its rows over their norms; no row may be zero.

    Examples
    --------
    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([25.0, 4.0]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """
    factors = square.rsqrt()[..., None]
    if bool((factors > _LARGEST_FACTOR).any()):
        return (w * factors.double()).to(w.dtype)
    return w * factors.to(w.dtype)


def mean_removed(w: Float[Tensor, "*batch d m"]) -> Float[Tensor, "*batch d m"]:
    """W less the mean of its rows that are not zero; those that are zero stay.

    What a LayerNorm takes off, in the coordinates of the neurons.

    Examples
    --------
    >>> import torch
    >>> mean_removed(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])).abs().tolist()
    [[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]]
    """
    alive = (w != 0).any(-1, keepdim=True)
    return (w - w.sum(-2, keepdim=True) / alive.sum(-2, keepdim=True).clamp_min(1)) * alive


def in_complement_of_mean(w: Float[Tensor, "*batch d m"]) -> Float[Tensor, "*batch c m"]:
    """The rows of W in an orthonormal basis of the complement of (1, …, 1): d - 1 of them.

    By the reflection that takes (1, …, 1)/√d to the first axis.

    Examples
    --------
    >>> import torch
    >>> round(abs(float(in_complement_of_mean(torch.tensor([[3.0], [5.0]])))), 5)  # (3 - 5)/√2
    1.41421
    """
    v = torch.full((w.shape[-2], 1), w.shape[-2] ** -0.5, dtype=w.dtype, device=w.device)
    v[0] -= 1
    along = v.mT @ w * (2 / v.square().sum())
    return w[..., 1:, :] - v[1:] * along


def flat_spread(d: int) -> float:
    """Spread of ⟨Ã, B̃⟩ for A and B with flat diagonals, in units of its Haar value.

    All of Ã and B̃ lies off the diagonal then. Under permutations and signs of the coordinates the
    variance is 2‖Ã‖²‖B̃‖²/(d(d-1)), and that of a Haar position 2‖Ã‖²‖B̃‖²/((d-1)(d+2)).

    Examples
    --------
    >>> round(flat_spread(16) ** 2, 12)
    1.125
    """
    return (1 + 2 / d) ** 0.5


def profile_free_rows(
    plain: Float[Tensor, "d m"],
    alive: Bool[Tensor, " d"],
    *,
    square: Float[Tensor, " d"] | None,
    centred: bool,
) -> Float[Tensor, "c m"]:
    """The rows of one map that are alive, over their norms and in the complement of their mean.

    Parameters
    ----------
    plain
        The map on the coordinates of the neurons.
    alive
        The rows that stay.
    square
        Squared norms of all rows, by whose roots they are divided; None to leave their scales.
    centred
        Whether the mean of the rows is removed.

    Examples
    --------
    >>> import torch
    >>> alive = torch.tensor([True, False])
    >>> w = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    >>> profile_free_rows(w, alive, square=torch.tensor([25.0, 4.0]), centred=False)
    tensor([[0.6000, 0.8000]])
    """
    rows = (mean_removed(plain) if centred else plain)[alive]
    rows = rows if square is None else unit_rows(rows, square[alive])
    return in_complement_of_mean(rows) if centred else rows
