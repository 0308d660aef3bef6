"""The strength of an adapter by least squares, and what is left of the change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flagscope.comparison.adapters.blocks import Block


class LeastSquares:
    """Sums over a tensor from which strength, residual and shares follow.

    With D = merged - base and P = s·B A: strength c = ⟨D, P⟩/‖P‖², residual ‖D‖² - c²‖P‖², share of
    D inside col(B) ⊗ row(A) = ‖QᵀD Z‖²/‖D‖² for orthonormal bases Q and Z.

    Parameters
    ----------
    left, right
        The factors as matrices.
    """

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self._write, self._read = _basis(left), _basis(right.T)
        self.entries = 0
        self.change = self.product = self.inner = self._apart = 0.0
        self.merged_noise = self.base_noise = 0.0
        self.unchanged = 0
        self.finite = True
        self.largest = 0.0
        self._inside = torch.zeros(self._write.shape[1], self._read.shape[1], dtype=torch.float64)

    def add(self, block: Block) -> None:
        """Add a block's sums."""
        difference, change = block.difference, block.change
        self.entries += difference.numel()
        self.change += _square(difference)
        self.product += _square(change)
        self.inner += float(torch.dot(difference.reshape(-1), change.reshape(-1)))
        self._apart += _square(difference - change)
        self.merged_noise += _square(block.merged_step) / 12
        self.base_noise += _square(block.base_step) / 12
        self.finite = self.finite and math.isfinite(self.change)
        self.largest = max(self.largest, float(block.merged_wide.abs().max()))
        self._inside += self._write[block.start : block.stop].T @ (difference @ self._read)

    @property
    def strength(self) -> float | None:
        """c; None where the adapter changes nothing."""
        return self.inner / self.product if self.product > 0 else None

    @property
    def residual(self) -> float:
        """‖D - c P‖_F."""
        strength = self.strength
        if strength is None:
            return math.sqrt(self.change)
        # From D - P where c is nearer to 1 than to 0: less is lost in the subtraction.
        start, rest = (
            (self._apart, strength - 1) if abs(strength - 1) < abs(strength)
            else (self.change, strength)
        )  # fmt: skip
        return math.sqrt(max(0.0, start - rest**2 * self.product))

    def standard_error(self, *, noise: float | None = None) -> float | None:
        """Of c: from the storage rounding of both, or from errors of a given mean square."""
        if self.product <= 0 or not self.entries:
            return None
        mean = (self.merged_noise + self.base_noise) / self.entries if noise is None else noise
        return math.sqrt(mean / self.product)

    @property
    def inflated_error(self) -> float | None:
        """As `standard_error`, from the residual where that is larger than rounding explains."""
        return self.standard_error(
            noise=max(self.residual**2, self.merged_noise + self.base_noise) / max(1, self.entries)
        )

    @property
    def share_in_span(self) -> float | None:
        """Share of ‖D‖² inside the spaces of both factors."""
        return float(self._inside.square().sum()) / self.change if self.change > 0 else None

    @property
    def chance_share(self) -> float:
        """The same for a change in random position."""
        return self._inside.numel() / max(1, self.entries)


def _square(values: Tensor) -> float:
    flat = values.reshape(-1)
    return float(torch.dot(flat, flat))


def _basis(factor: Tensor) -> Tensor:
    """Orthonormal columns that span a factor's."""
    if not bool(factor.any()):
        return factor.new_zeros(len(factor), 0)
    u, values, _ = torch.linalg.svd(factor, full_matrices=False)
    kept = values > values[0] * max(factor.shape) * torch.finfo(values.dtype).eps
    return u[:, kept]
