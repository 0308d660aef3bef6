"""The update ΔW of one map: its size, its own spectrum, and what rounding explains of it."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.comparison.change.leading import SignalCount, is_dense, signal_count, squared_norm
from flagscope.comparison.change.reading import largest_entry
from flagscope.geometry import even_exponents, gram, power_of_two, ritz_space

# Vectors with which the squared norm of a large Gram matrix is estimated.
_PROBES = 24


class Update:
    """ΔW, and the numbers that are taken from it.

    Parameters
    ----------
    delta
        ΔW, not zero.
    seed
        Of random vectors.

    Attributes
    ----------
    values
        ΔW over a power of two, so that its fourth powers stay in range however small it is.
    values_square
        Their squared norm.
    square
        ‖ΔW‖² itself; 0 where it is below what a float64 holds.
    """

    def __init__(self, delta: Float[Tensor, "p m"], *, seed: int) -> None:
        exponent = even_exponents(largest_entry(delta))
        self.values = power_of_two(delta, -exponent)
        self.shape: tuple[int, int] = (delta.shape[0], delta.shape[1])
        self.values_square = squared_norm(self.values)
        self._unit = 2.0 ** int(exponent)
        self.square = self.values_square * self._unit * self._unit
        self._seed = seed

    @cached_property
    def _gram(self) -> Float[Tensor, "s s"]:
        return gram(_short(self.values))

    @cached_property
    def spectral_norm(self) -> float:
        """Largest singular value, to about 1e-6; of large maps a lower bound, as near as that
        where the largest stands out."""
        if is_dense(self.shape):
            largest = torch.linalg.eigvalsh(self._gram)[-1].clamp_min(0).sqrt()
            return self._unit * float(largest)
        generator = torch.Generator().manual_seed(self._seed)
        return self._unit * float(ritz_space(self.values, generator=generator).sigma[0])

    @cached_property
    def participation(self) -> float:
        """(Σσ²)²/Σσ⁴ of ΔW, within its range; of large maps to about 1 %."""
        return self._participation(self.values, self.values_square)

    @cached_property
    def signal(self) -> SignalCount:
        """Directions of ΔW that stand out of the bulk."""
        return signal_count(self.values, seed=self._seed)

    def even(self, *, rows: bool) -> tuple[Float[Tensor, "p m"], float]:
        """ΔW with its rows (else its columns) brought to equal size, and its participation ratio.

        Lines that are zero stay. The Haar null needs that: an update whose lines have unequal sizes
        lies in a space with the same profile without being aligned to it.
        """
        return self._even_rows if rows else self._even_columns

    @cached_property
    def _even_rows(self) -> tuple[Tensor, float]:
        return self._evened(1)

    @cached_property
    def _even_columns(self) -> tuple[Tensor, float]:
        return self._evened(0)

    def _evened(self, axis: int) -> tuple[Tensor, float]:
        norms = torch.linalg.vector_norm(self.values, dim=axis, keepdim=True)
        even = self.values / torch.where(norms > 0, norms, 1)
        return even, self._participation(even, float((norms > 0).sum()))

    def _participation(self, w: Tensor, square: float) -> float:
        if is_dense(self.shape):
            matrix = self._gram if w is self.values else gram(_short(w))
            fourth = squared_norm(matrix)
        else:
            fourth = _gram_square(_short(w), seed=self._seed)
        return min(max(square * square / fourth, 1.0), float(min(self.shape)))


def _short(w: Float[Tensor, "p m"]) -> Float[Tensor, "s l"]:
    return w if w.shape[0] <= w.shape[1] else w.mT


def _gram_square(w: Float[Tensor, "p m"], *, seed: int) -> float:
    """‖W Wᵀ‖_F² from few products: exact on a space of leading directions, estimated on the rest.

    References
    ----------
    R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, "Hutch++: optimal stochastic trace estimation",
    SOSA 2021, for the square of the Gram matrix.
    """
    generator = torch.Generator().manual_seed(seed)

    def apply(x: Tensor) -> Tensor:
        return w @ (w.mT @ x)

    def drawn() -> Tensor:
        return torch.randn(w.shape[0], _PROBES, generator=generator, dtype=torch.float64).to(w)

    basis = torch.linalg.qr(apply(drawn()))[0]
    inside = squared_norm(apply(basis))
    probes = drawn()
    probes = probes - basis @ (basis.mT @ probes)
    outside = squared_norm(apply(probes))
    return inside + outside / _PROBES
