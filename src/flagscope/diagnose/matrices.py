"""A batch of maps with the noise of their storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Exponents of two of the largest entry between which maps are taken as they are. The diagnostics
# form eighth powers of singular values; these leave them within the range of the type. Float32 has
# little room, and none above: singular values exceed the entries by the root of the size.
_SAFE_EXPONENTS = {torch.float64: (-96, 96), torch.float32: (-8, 0)}


@dataclass(frozen=True)
class Matrices:
    """A batch of n maps of one shape.

    Attributes
    ----------
    values
        Shape (n, rows, columns), in the precision of the computation.
    delta
        Estimate of the spectral norm of each map's storage error, shape (n,), float64, on the CPU.
    mean_square
        Mean variance of the storage error of an entry, shape (n,), float64, on the CPU.
    repeated
        Whether values of a map repeat so often that `delta` may be too small, shape (n,), on the
        CPU; None where that is not known.
    """

    values: Float[Tensor, "n rows columns"]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]
    repeated: Bool[Tensor, " n"] | None = None

    def take(self, indices: list[int]) -> Matrices:
        """The maps at these indices, which may repeat."""
        if indices == list(range(len(self.values))):
            return self
        at = torch.tensor(indices, dtype=torch.int64)
        repeated = None if self.repeated is None else self.repeated[at]
        return Matrices(
            self.values[at.to(self.values.device)], self.delta[at], self.mean_square[at], repeated
        )

    def repeats(self, i: int) -> bool:
        """Whether values of the i-th map are known to repeat."""
        return self.repeated is not None and bool(self.repeated[i])

    def faults(self) -> list[str | None]:
        """Why each map cannot be measured: 'not finite', 'all zero', or None if it can be."""
        return [
            "not finite" if not math.isfinite(m) else "all zero" if m == 0 else None
            for m in self._largest().tolist()
        ]

    def normalised(self) -> tuple[Matrices, Int[Tensor, " n"]]:
        """The maps over powers of two that bring their largest entry to [½, 1), and the exponents.

        No digit is lost. Maps far from the ends of the range of their type are left as they are
        (exponent 0, no copy). The same matrices come again if asked again.

        Examples
        --------
        >>> tiny = torch.tensor([[[3e-200]]], dtype=torch.float64)
        >>> maps, exponents = Matrices(tiny, torch.zeros(1), torch.zeros(1)).normalised()
        >>> float(maps.values), exponents.tolist()
        (0.5740..., [-662])
        """
        over = self._over_powers
        return (self, torch.zeros(len(self.values), dtype=torch.int64)) if over is None else over

    @cached_property
    def _over_powers(self) -> tuple[Matrices, Int[Tensor, " n"]] | None:
        # None where nothing changes: what held itself would outlive its last use.
        exponents = torch.frexp(self._largest()).exponent.to(torch.int64).cpu()
        least, most = _SAFE_EXPONENTS.get(self.values.dtype, (0, 0))
        if bool(((exponents >= least) & (exponents <= most)).all()):
            return None
        at = exponents.to(self.values.device)[:, None, None]
        values, delta = power_of_two(self.values, -at), power_of_two(self.delta, -exponents)
        # A square that left the range of float64 is bounded by that of δ, which is the largest norm
        # of a row and of a column of deviations.
        lost = (self.mean_square == 0) | ~torch.isfinite(self.mean_square)
        bound = delta.square() / max(self.values.shape[1:])
        mean_square = power_of_two(self.mean_square, -2 * exponents)
        mean_square = torch.where(lost, bound, mean_square)
        return Matrices(values, delta, mean_square, self.repeated), exponents

    def _largest(self) -> Float[Tensor, " n"]:
        # NaN and infinity survive a maximum, so one pass finds them and zeros.
        return torch.maximum(self.values.amax((-2, -1)), -self.values.amin((-2, -1)))


def power_of_two(values: Float[Tensor, "*a"], exponents: Int[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    """values · 2^exponents, also where 2^exponents itself would leave the range of the type."""
    third = exponents.div(3, rounding_mode="trunc")
    ones = torch.ones(exponents.shape, dtype=values.dtype, device=values.device)
    factor = torch.ldexp(ones, third)
    return values * factor * factor * torch.ldexp(ones, exponents - 2 * third)
