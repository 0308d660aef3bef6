"""A batch of maps with the noise of their storage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Exponents of two of the largest entry between which maps are taken as they are. The diagnostics
# form eighth powers of singular values; these leave them within the range of the type. Float32 has
# little room, and none above: singular values exceed the entries by the root of the size.
_SAFE_EXPONENTS = {torch.float64: (-96, 96), torch.float32: (-8, 0)}

# The same between which maps are left as they are read: products of two, and sums of such products,
# stay in range.
_ROOM = {torch.float64: (-400, 400), torch.float32: (-40, 40)}
# A norm in float32 below this is not right, since its squares leave the range at the lower end.
_LEAST_NORM = 2.0**-50

# Entries that are squared at a time.
_BLOCK = 1 << 18

# Why a map cannot be measured.
NOT_FINITE = "not finite"
ALL_ZERO = "all zero"


@dataclass(frozen=True)
class Matrices:
    """A batch of n maps of one shape, each in a unit of its own.

    Attributes
    ----------
    values
        Shape (n, rows, columns), in the precision of the computation.
    delta
        Estimate of the spectral norm of each map's storage error, in the unit of its values, shape
        (n,), float64, on the CPU.
    mean_square
        Mean variance of the storage error of an entry, shape (n,), float64, on the CPU.
    repeated
        Whether values of a map repeat so often that `delta` may be too small, shape (n,), on the
        CPU; None where that is not known.
    units
        Exponents of two: the i-th map is 2^units[i] times its values. Even, so that the root of a
        unit is a power of two as well; None where all are 0. What adds maps, compares their sizes
        or lays them side by side has to bring them to one unit.
    """

    values: Float[Tensor, "n rows columns"]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]
    repeated: Bool[Tensor, " n"] | None = None
    units: Int[Tensor, " n"] | None = None

    @property
    def exponents(self) -> Int[Tensor, " n"]:
        """The units, zeros where there are none."""
        if self.units is not None:
            return self.units
        return torch.zeros(len(self.values), dtype=torch.int64)

    def take(self, indices: list[int]) -> Matrices:
        """The maps at these indices, which may repeat."""
        if indices == list(range(len(self.values))):
            return self
        at = torch.tensor(indices, dtype=torch.int64)
        repeated = None if self.repeated is None else self.repeated[at]
        units = None if self.units is None else self.units[at]
        return Matrices(
            self.values[at.to(self.values.device)], self.delta[at], self.mean_square[at], repeated,
            units,
        )  # fmt: skip

    def transposed(self) -> Matrices:
        """The transposed maps."""
        return replace(self, values=self.values.mT)

    def repeats(self, i: int) -> bool:
        """Whether values of the i-th map are known to repeat."""
        return self.repeated is not None and bool(self.repeated[i])

    def faults(self) -> list[str | None]:
        """Why each map cannot be measured: 'not finite', 'all zero', or None if it can be."""
        return [
            NOT_FINITE if not math.isfinite(m) else ALL_ZERO if m == 0 else None
            for m in self._largest.tolist()
        ]

    def normalised(self) -> Matrices:
        """The maps in units of the powers of four that bring their largest entry to [¼, 1).

        No digit is lost. Maps far from the ends of the range of their type are left as they are (no
        copy). The same matrices come again if asked again.

        Examples
        --------
        >>> tiny = torch.tensor([[[3e-200]]], dtype=torch.float64)
        >>> maps = Matrices(tiny, torch.zeros(1), torch.zeros(1)).normalised()
        >>> float(maps.values), maps.exponents.tolist()
        (0.5740..., [-662])
        """
        return self._over_powers or self

    def narrowed(self, dtype: torch.dtype) -> Matrices:
        """The maps in another type, in units in which its range holds what is made of them."""
        fitting = self._over(_SAFE_EXPONENTS.get(dtype, (0, 0))) or self
        return replace(fitting, values=fitting.values.to(dtype))

    def with_room(self, dtype: torch.dtype) -> Matrices:
        """The maps in a type, in units of their own where they lie near the ends of its range."""
        fitting = self._over(_ROOM.get(dtype, (0, 0))) or self
        if fitting.values.dtype == dtype:
            return fitting
        return replace(fitting, values=fitting.values.to(dtype))

    @cached_property
    def _over_powers(self) -> Matrices | None:
        # None where nothing changes: what held itself would outlive its last use.
        return self._over(_SAFE_EXPONENTS.get(self.values.dtype, (0, 0)))

    def _over(self, limits: tuple[int, int]) -> Matrices | None:
        exponents = even_exponents(self._largest).cpu()
        least, most = limits
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
        return Matrices(values, delta, mean_square, self.repeated, self.exponents + exponents)

    @cached_property
    def _largest(self) -> Float[Tensor, " n"]:
        # NaN and infinity survive a maximum, so one pass finds them and zeros.
        return torch.maximum(self.values.amax((-2, -1)), -self.values.amin((-2, -1)))


# Exponents of powers of two below this magnitude are in the range of float32.
_IN_RANGE = 120


def even_exponents(largest: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Even exponents of two that bring these numbers to [¼, 1); 0 for what is not finite."""
    exponents = torch.frexp(largest).exponent.to(torch.int64)
    return torch.where(torch.isfinite(largest), exponents + exponents % 2, 0)


def power_of_two(values: Float[Tensor, "*a"], exponents: Int[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    """values · 2^exponents, also where 2^exponents itself would leave the range of the type."""
    if exponents.numel() == 1 and exponents.device.type == "cpu":
        exponent = int(exponents)
        if abs(exponent) < _IN_RANGE and values.dtype in (torch.float32, torch.float64):
            return values * 2.0**exponent
    third = exponents.div(3, rounding_mode="trunc")
    ones = torch.ones(exponents.shape, dtype=values.dtype, device=values.device)
    factor = torch.ldexp(ones, third)
    return values * factor * factor * torch.ldexp(ones, exponents - 2 * third)


def line_norms(w: Float[Tensor, "*n rows columns"], *, dim: int) -> Float[Tensor, "*n lines"]:
    """Norms of the rows (dim -1) or columns (dim -2), without a squared copy of the maps.

    In the type of the maps, or in float64 where some would leave the range of float32.
    """
    norms = _norms(w, dim)
    if w.dtype != torch.float32 or not bool((norms < _LEAST_NORM).any()):
        return norms
    exact = torch.linalg.vector_norm(w, dim=dim, dtype=torch.float64)
    # Zeros alone do not call for other digits.
    return exact if bool(((exact > 0) & (norms < _LEAST_NORM)).any()) else norms


def _norms(w: Float[Tensor, "*n rows columns"], dim: int) -> Float[Tensor, "*n lines"]:
    if w.stride(-1) != 1 and w.stride(-2) == 1:
        return _norms(w.mT, -3 - dim)
    if dim == -1:
        return torch.linalg.vector_norm(w, dim=-1)
    # Down the columns by blocks of rows that stay in the cache: a tenth of the time.
    rows = max(1, _BLOCK // max(1, w.numel() // max(1, w.shape[-2])))
    total = torch.zeros(*w.shape[:-2], 1, w.shape[-1], dtype=torch.float64, device=w.device)
    for block in w.split(rows, dim=-2):
        total += w.new_ones(1, block.shape[-2]) @ block.square()
    return total[..., 0, :].sqrt().to(w.dtype)


def gram_weights(
    like: Float[Tensor, "n p"], write: Int[Tensor, " n"], read: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Factors to one unit for the Gram matrices of n pairs: 4^e of both sides, over the larger."""
    top = torch.maximum(write, read)
    ones = torch.ones(len(write), dtype=torch.float64)
    of_a, of_b = (power_of_two(ones, 2 * (side - top)).to(like) for side in (write, read))
    return of_a, of_b
