"""What is kept of the product of two maps at one step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.comparison.change.kept_directions import KeptDirections
from flagscope.geometry.factored_change import factored_change
from flagscope.geometry.norm_sketch import norm_sketch, sketch_variance
from flagscope.geometry.product_drift import ProductDrift, product_drift
from flagscope.geometry.product_sketch import PRODUCT_SKETCH_SIZE, product_sketch
from flagscope.series.motion.state import MapState

KEPT_OF_PRODUCTS = 8
"""Leading singular directions of a product that are kept of a step."""

# Rounding of a product computed from its factors, in units of ε of their norms' product.
_ROUNDOFF = 16 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class ProductState(MapState):
    """The product P = W2 W1 of two maps at one step.

    Of its fields `square`, `sketch` (`product_sketch`) and `directions`, the leading 8, are those
    of P; `mean_square` is that of an entry of what storage rounding of both maps leaves in P.

    Attributes
    ----------
    shared
        Dimension d of the space between the maps.
    factor_squares
        ‖W2‖² and ‖W1‖².
    factor_sketches
        Of the entries of W2 and of W1.
    drifts
        What random updates of the two turn the left directions of P by, and the right ones.
    """

    shared: int
    factor_squares: tuple[float, float]
    factor_sketches: tuple[Float[Tensor, " s"], Float[Tensor, " s"]]
    drifts: tuple[ProductDrift, ProductDrift]

    @property
    def errors(self) -> int:
        """Errors that storage leaves in it are at the least those of one direction between."""
        return sum(self.directions.shape)

    @property
    def square_variance(self) -> float:
        """Variance of the squared norm of a difference by sketches, over its square."""
        return sketch_variance(self.entries, size=PRODUCT_SKETCH_SIZE)

    @property
    def factor_entries(self) -> tuple[int, int]:
        """Entries of W2 and of W1."""
        rows, columns = self.directions.shape
        return rows * self.shared, self.shared * columns


def product_state(
    second: Float[Tensor, "p d"], first: Float[Tensor, "d m"], *, rounding: float
) -> ProductState | None:
    """What is kept of a product; None where its squares exceed double precision.

    Costs O((p + m) d²); the p x m product is not formed.

    Parameters
    ----------
    second, first
        W2 and W1, float64.
    rounding
        Expected squared norm of what storage rounding of both leaves in the product.
    """
    product = factored_change(second, first)
    squares = float(second.square().sum()), float(first.square().sum())
    square = float(product.core.square().sum())
    roundoff = _ROUNDOFF * math.sqrt(squares[0]) * math.sqrt(squares[1])
    total = rounding + roundoff * roundoff
    if not math.isfinite(square) or not math.isfinite(total):
        return None
    left, sigma, right = torch.linalg.svd(product.core, full_matrices=True)
    sigma = sigma[sigma > roundoff]
    kept = min(KEPT_OF_PRODUCTS, len(sigma))
    # Bases of the ranges of W2 and of W1ᵀ, the singular directions of the product first.
    write, read = product.write @ left, product.read @ right.mT
    own, other = write.mT @ second, (first @ read).mT
    rows, columns = second.shape[0], first.shape[1]
    return ProductState(
        square=square,
        mean_square=total / (rows * columns),
        sketch=product_sketch(second, first),
        directions=KeptDirections(
            shape=(rows, columns), rank=kept, complete=kept == len(sigma), dense=True, sigma=sigma,
            following=0.0, turns=tuple(_turn(sigma, k, roundoff) for k in range(kept)),
            vectors=(write[:, :kept].float().contiguous(), read[:, :kept].float().contiguous()),
        ),
        shared=second.shape[1],
        factor_squares=squares,
        factor_sketches=(
            norm_sketch(second, size=PRODUCT_SKETCH_SIZE),
            norm_sketch(first, size=PRODUCT_SKETCH_SIZE),
        ),
        drifts=(
            _drift(sigma, own, other, outside=rows - len(own), leading=kept),
            _drift(sigma, other, own, outside=columns - len(other), leading=kept),
        ),
    )  # fmt: skip


def _turn(sigma: Float[Tensor, " k"], k: int, roundoff: float) -> float:
    following = float(sigma[k + 1]) if k + 1 < len(sigma) else 0.0
    gap = float(sigma[k]) - following
    return min(1.0, roundoff / gap) if gap > 0 else 1.0


def _drift(
    sigma: Tensor, own: Tensor, other: Tensor, *, outside: int, leading: int
) -> ProductDrift:
    """The drift of one side, with as many rows of the other as of its own."""
    count = min(len(sigma), len(own))
    across = torch.zeros_like(own)
    across[:count] = other[:count]
    return product_drift(sigma, own, across, outside=outside, leading=leading)
