"""A batch of maps with the noise of their storage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Matrices:
    """A batch of n maps of one shape.

    Attributes
    ----------
    values
        Shape (n, rows, columns), in the precision of the computation.
    delta
        Bound on the spectral norm of each map's storage error, shape (n,), float64, on the CPU.
    mean_square
        Mean variance of the storage error of an entry, shape (n,), float64, on the CPU.
    """

    values: Float[Tensor, "n rows columns"]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]

    def take(self, indices: list[int]) -> Matrices:
        """The maps at these indices, which may repeat."""
        if indices == list(range(len(self.values))):
            return self
        at = torch.tensor(indices, dtype=torch.int64)
        return Matrices(
            self.values[at.to(self.values.device)], self.delta[at], self.mean_square[at]
        )

    def faults(self) -> list[str | None]:
        """Why each map cannot be measured: 'not finite', 'all zero', or None if it can be."""
        # NaN and infinity survive a maximum, so one pass finds them and zeros.
        largest = self.values.abs().amax((-2, -1)).tolist()
        return [
            "not finite" if not math.isfinite(m) else "all zero" if m == 0 else None
            for m in largest
        ]
