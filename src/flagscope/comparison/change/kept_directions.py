"""The leading singular directions of a map, held without the map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.comparison.change.leading import Directions, SignalCount
from flagscope.geometry.ritz import orthonormalised

_PRECISION = 1e-7  # sine by which rounding to float32 may turn a direction


@dataclass(frozen=True)
class KeptDirections:
    """What a drift takes of `Directions`, with leading directions alone.

    Attributes
    ----------
    shape
        Outputs and inputs.
    rank, complete
        Directions that stand out of the bulk, and whether there may be more.
    dense, sigma, following
        Singular values, as in `Directions`; none where no direction stands out.
    vectors
        Output and input directions, float32.
    turns
        What the computation may turn the leading 1, 2, … of them by.
    """

    shape: tuple[int, int]
    rank: int
    complete: bool
    dense: bool
    sigma: Float[Tensor, " k"]
    following: float
    vectors: tuple[Float[Tensor, "p r"], Float[Tensor, "m r"]]
    turns: tuple[float, ...]

    @property
    def signal(self) -> SignalCount:
        """Directions that stand out, as many as are held."""
        kept = len(self.turns)
        return SignalCount(kept, self.complete and kept == self.rank)

    def turn(self, k: int) -> float:
        """What the computation, and rounding of what is held, may turn the leading k by."""
        return max(self.turns[k - 1], _PRECISION) if 0 < k <= len(self.turns) else 1.0

    @cached_property
    def _bases(self) -> tuple[Tensor, Tensor]:
        left, right = self.vectors
        return orthonormalised(left), orthonormalised(right)

    def left(self, part: slice) -> Float[Tensor, "p k"]:
        """Output directions, orthonormal, float64."""
        return self._bases[0][:, part]

    def right(self, part: slice) -> Float[Tensor, "m k"]:
        """Input directions, orthonormal, float64."""
        return self._bases[1][:, part]


def kept_directions(
    w: Float[Tensor, "p m"], *, most: int, unit: float, seed: int
) -> KeptDirections:
    """Directions of a map that stand out, at most so many.

    Parameters
    ----------
    w
        One map, over `unit`.
    most
        Directions to hold.
    unit
        What singular values are multiplied by.
    seed
        Of the random block of large maps.
    """
    directions = Directions(w, seed=seed)
    signal = SignalCount(0, True)
    if min(w.shape) > 1 and bool((w != 0).any()):
        signal = directions.signal
    kept = min(signal.rank, most)
    part = slice(0, kept)
    sigma, following = w.new_zeros(0, dtype=torch.float64), 0.0
    vectors = w.new_zeros(w.shape[0], 0), w.new_zeros(w.shape[1], 0)
    if kept:
        sigma, following = directions.sigma * unit, directions.following * unit
        vectors = directions.left(part), directions.right(part)
    return KeptDirections(
        shape=directions.shape,
        rank=signal.rank,
        complete=signal.complete,
        dense=directions.dense,
        sigma=sigma,
        following=following,
        vectors=(vectors[0].float().contiguous(), vectors[1].float().contiguous()),
        turns=tuple(directions.turn(k + 1) for k in range(kept)),
    )
