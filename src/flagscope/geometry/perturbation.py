"""Perturbation bounds: how far storage noise and rounding move spaces, Grams and products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.geometry.matrices import Matrices
from flagscope.geometry.signal import signal_rank_of


@dataclass(frozen=True)
class NoisyMap:
    """One map with the noise of its storage and the rounding of its singular vectors.

    Attributes
    ----------
    shape
        The shared dimension first.
    sigma
        Singular values, descending.
    delta
        Estimate of the spectral norm of its storage error.
    roundoff
        Unit roundoff in which its singular vectors were computed.
    matrix
        Gives the map itself, which is rarely needed.
    """

    shape: tuple[int, int]
    sigma: Float[Tensor, " s"]
    delta: float
    roundoff: float
    matrix: Callable[[], Float[Tensor, "d m"]]

    def turn(self, rank: int) -> float:
        """Bound on the sine by which the storage error turns the top-`rank` space.

        δ over the gap below σ_rank; the gap is σ_rank itself for the whole range. The Gram
        matrices add their rounding.

        References
        ----------
        .. [1] P.-Å. Wedin, Perturbation bounds in connection with singular value decomposition,
           BIT 12 (1972) 99-111.
        """
        last, below = self._edge(rank)
        gap = last - min(below, last)
        return (self.delta / gap if gap > 0 else 1.0) + self.rounding(rank)

    def rounding(self, rank: int) -> float:
        """Error of the leading singular vectors by way of the Gram matrix.

        u·κ² of the directions, and u·σ_1² over the gap of the squares for the turn at the edge, in
        which of `rank` directions only the last few have a part: one in general position has a
        share of 1/√rank of it (measured: 0.4 to 0.9 of that).
        """
        top, (last, below) = float(self.sigma[0]), self._edge(rank)
        gap = (last - min(below, last)) * (last + below)
        edge = 2 * top**2 / (gap * rank**0.5) if gap > 0 else 0.0
        return self.roundoff * ((top / last) ** 2 + edge)

    def _edge(self, rank: int) -> tuple[float, float]:
        below = float(self.sigma[rank]) if rank < len(self.sigma) else 0.0
        return float(self.sigma[rank - 1]), below


@dataclass(frozen=True)
class NoisyMaps:
    """The maps on one side of n pairs: shape, size and noise, whose values may have been released.

    They are taken over powers of two, so that eighth powers of singular values stay in range.

    Attributes
    ----------
    shape
        (shared dimension, other dimension).
    delta, mean_square
        Noise of their storage, as in `Matrices`.
    norm
        Frobenius norms, shape (n,), float64, on the CPU.
    exponents
        Of their units, see `Matrices`, shape (n,).
    matrix
        Gives the i-th map, the shared space along the rows.
    signal
        Signal ranks, shape (n,), where they were asked for.
    """

    shape: tuple[int, int]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]
    norm: Float[Tensor, " n"]
    exponents: Int[Tensor, " n"]
    matrix: Callable[[int], Float[Tensor, "d m"]]
    signal: Int[Tensor, " n"] | None = None

    def map(self, i: int, sigma: Float[Tensor, " s"], *, roundoff: float) -> NoisyMap:
        """The i-th map, with its singular values and the roundoff of its singular vectors."""
        return NoisyMap(self.shape, sigma, float(self.delta[i]), roundoff, lambda: self.matrix(i))


def noisy_maps(
    maps: Matrices,
    *,
    read: bool,
    signal: bool,
    plain: Float[Tensor, "n rows columns"] | None = None,
) -> NoisyMaps:
    """Shape, size and noise of normalised maps (see `Matrices.normalised`).

    Parameters
    ----------
    maps
        Write maps (n, d, m), or read maps (n, m, d).
    read
        Which of the two.
    signal
        Whether their signal ranks are counted.
    plain
        The maps before a mean was removed from them, where one was: only there is a coordinate of
        the shared space that of a neuron, with a scale of its own.
    """
    values = maps.values.mT if read else maps.values
    counted = signal_rank_of(maps.values if plain is None else plain) if signal else None
    return NoisyMaps(
        shape=(values.shape[1], values.shape[2]),
        delta=maps.delta,
        mean_square=maps.mean_square,
        norm=torch.linalg.matrix_norm(values).cpu().double(),
        exponents=maps.exponents,
        matrix=lambda i: values[i],
        signal=counted,
    )


def gram_error(maps: NoisyMaps, *, roundoff: float) -> Float[Tensor, " n"]:
    """Estimate of the Frobenius norm of the error of W Wᵀ: 2 ‖W‖ ‖ΔW‖_F to first order.

    Parameters
    ----------
    maps
        n maps.
    roundoff
        Unit roundoff in which the Gram matrices were computed.
    """
    error = (maps.mean_square * (maps.shape[0] * maps.shape[1])).sqrt()
    return 2 * maps.norm * (error + roundoff * maps.norm)


def product_error(write: NoisyMap, read: NoisyMap) -> float:
    """Bound on the spectral norm of the error of W2 W1: δ1 ‖W2‖ + δ2 ‖W1‖ + δ1 δ2.

    Examples
    --------
    >>> map_ = NoisyMap((1, 1), torch.tensor([2.0]), 0.5, 1e-16, lambda: torch.tensor([[2.0]]))
    >>> product_error(map_, map_)
    2.25
    """
    top1, top2 = float(write.sigma[0]), float(read.sigma[0])
    return write.delta * top2 + read.delta * top1 + write.delta * read.delta
