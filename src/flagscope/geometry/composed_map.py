"""The composed map M = W2 W1 of a pair: singular values, rank and lost write directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry.gram import gram_singular_values
from flagscope.geometry.intersection import kernel_intersection
from flagscope.geometry.perturbation import NoisyMap, product_error
from flagscope.geometry.ranks import participation_of_moments
from flagscope.geometry.spectra import PairSpectra

# Error of `cross` in float32, in unit roundoffs of ‖W1‖ ‖W2‖: a bound that none came near.
_CROSS_ERROR = 64
# Dimensions of the shared space that are widened to float64 at a time.
_BLOCK = 1024


def product_singular_values(
    s: PairSpectra, maps: Callable[[], tuple[Tensor, Tensor]], *, size: int
) -> Float[Tensor, "n k"]:
    """Singular values of W2 W1, descending, k = min(d, m1, m2), to about d·u·‖W1‖·‖W2‖.

    Those of `cross`, which err by √(d·u)·‖W1‖·‖W2‖ as roots of Gram eigenvalues do; where some are
    so small that it matters, from the maps.

    Parameters
    ----------
    s
        Of n pairs.
    maps
        Gives the write maps (n, d, m1) and read maps (n, m2, d); called where they are needed.
    size
        The largest of d, m1 and m2.

    Examples
    --------
    >>> from flagscope.geometry import pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))[None]
    >>> product_singular_values(pair_spectra(w, w), lambda: (w, w), size=2)
    tensor([[4., 0.]], dtype=torch.float64)
    """
    sigma = torch.linalg.svdvals(s.cross)
    floor = 4 * (size * torch.finfo(sigma.dtype).eps) ** 0.5
    _recompute_small(sigma, s, maps, floor)
    return sigma


def _recompute_small(
    sigma: Tensor, s: PairSpectra, maps: Callable[[], tuple[Tensor, Tensor]], floor: float
) -> Bool[Tensor, " n"]:
    """Recompute from the maps, in place, the singular values of pairs with one below `floor`
    ‖W1‖ ‖W2‖; returns the mask of those pairs."""
    doubtful = sigma[:, -1] <= floor * s.sigma_write[:, 0] * s.sigma_read[:, 0]
    if bool(doubtful.any()):
        sigma[doubtful] = _from_maps(*maps(), doubtful)[:, : sigma.shape[1]]
    return doubtful


def _from_maps(w1: Tensor, w2: Tensor, which: Tensor) -> Float[Tensor, "k s"]:
    """Singular values of some W2 W1 in float64; of maps wider than the shared space by way of
    triangular factors, which are as small as it."""
    right, left = (w1, w2) if bool(which.all()) else (w1[which], w2[which])
    d = right.shape[-2]
    if right.shape[-1] > d:
        right = torch.linalg.qr(right.double().mT, mode="r").R.mT
    if left.shape[-2] > d:
        left = torch.linalg.qr(left.double(), mode="r").R
    # A block of the shared space at a time: a whole map in float64 is large.
    product = right.new_zeros(len(left), left.shape[-2], right.shape[-1], dtype=torch.float64)
    for rows in range(0, d, _BLOCK):
        block = slice(rows, rows + _BLOCK)
        product += left[..., block].double() @ right[..., block, :].double()
    return torch.linalg.svdvals(product)


def single_product_singular_values(
    s: PairSpectra, maps: Callable[[], tuple[Tensor, Tensor]], *, size: int
) -> tuple[Float[Tensor, "n k"], list[float]]:
    """Singular values of W2 W1, descending, in float64 from spectra in float32, and their accuracy.

    By the Gram matrix of `cross`, formed in float64: a third of the work of a singular value
    decomposition in float32, and as good as `cross` is, some unit roundoffs of ‖W1‖ ‖W2‖. Where
    some are smaller than that, ranks hang on them: all of that pair are taken in float64 from the
    maps.

    Parameters
    ----------
    s, maps, size
        As for `product_singular_values`; the maps in float32.

    Returns
    -------
    tuple
        The singular values, and of each pair their accuracy in units of ‖W1‖ ‖W2‖.

    Examples
    --------
    >>> from flagscope.geometry import pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0]))[None]
    >>> single_product_singular_values(pair_spectra(w, w), lambda: (w, w), size=2)[0]
    tensor([[4., 1.]], dtype=torch.float64)
    """
    resolution = _CROSS_ERROR * torch.finfo(s.cosines.dtype).eps
    sigma = gram_singular_values(s.cross)
    settled = _recompute_small(sigma, s, maps, resolution)
    exact = size * torch.finfo(torch.float64).eps
    return sigma, [exact if one else resolution for one in settled.tolist()]


@dataclass(frozen=True)
class ComposedMap:
    """M = W2 W1 of one pair.

    Attributes
    ----------
    spectrum
        Singular values, descending, float64, on the CPU; None where they are not known.
    rank
        Number of singular values above noise and rounding; None where it is open.
    participation
        Participation ratio of the singular values; 0 where all are zero.
    kernel_intersection
        dim(col W1 ∩ ker W2); None where it is open.
    beyond_range
        Whether a singular value exceeds float64.
    """

    spectrum: Float[Tensor, " k"] | None
    rank: int | None
    participation: float
    kernel_intersection: int | None
    beyond_range: bool = False


def composed_map(
    sigma: Float[Tensor, " k"],
    write: NoisyMap,
    read: NoisyMap,
    *,
    rank_write: int,
    exponent: int,
    resolution: float,
) -> ComposedMap:
    """Spectrum of M = W2 W1, and what of the write space it loses.

    The storage noise of M is bounded by `product_error`, and the round-off of its singular values
    by `resolution`. A singular value between the two may or may not be zero in truth: the kernel
    intersection is then left open.

    Parameters
    ----------
    sigma
        Singular values in a unit of their own, descending.
    write, read
        W1 and W2, in units of their own.
    rank_write
        Numerical rank of W1.
    exponent
        M is 2^exponent times what has the singular values `sigma`.
    resolution
        Accuracy of `sigma`, relative to ‖W1‖ ‖W2‖.
    """
    floor = resolution * float(write.sigma[0]) * float(read.sigma[0])
    certain = int((sigma > max(product_error(write, read), floor)).sum())
    # What a Gram matrix lost may be small and not zero.
    lost = resolution > max(write.shape + read.shape) * torch.finfo(sigma.dtype).eps
    possible = len(sigma) if lost else int((sigma > floor).sum())
    kernel = None
    if min(certain, rank_write) == min(possible, rank_write):
        kernel = kernel_intersection(rank_write=rank_write, rank_product=min(certain, rank_write))
    square = sigma.square()
    # In double precision, whatever the weights: only a product beyond 1e308 has no number.
    with np.errstate(over="ignore"):
        true = np.ldexp(sigma.cpu().double().numpy(), exponent)
    beyond = not np.isfinite(true).all()
    return ComposedMap(
        spectrum=None if beyond else torch.from_numpy(true),
        rank=certain,
        participation=float(participation_of_moments(square.sum(), square.square().sum())),
        kernel_intersection=kernel,
        beyond_range=beyond,
    )


def bounded_composed_map(
    spectra: PairSpectra,
    i: int,
    write: NoisyMap,
    read: NoisyMap,
    *,
    ranks: tuple[int, int],
    resolution: float,
) -> ComposedMap:
    """What is known of M = W2 W1 without its singular values.

    The participation ratio follows from sums. M loses nothing of the smaller range if its least
    singular value there, at least σ_r1(W1) σ_r2(W2) times the least cosine between the ranges, is
    above the noise of M; where it is not, the rank and the kernel intersection are left open.

    Parameters
    ----------
    spectra, i
        The i-th pair of these.
    write, read
        W1 and W2.
    ranks
        Their numerical ranks.
    resolution
        Accuracy of singular values of M, relative to ‖W1‖ ‖W2‖.
    """
    rank = None
    if all(ranks):
        cosine = _least_cosine(spectra.cosines[i], *ranks, spectra.d)
        least = float(write.sigma[ranks[0] - 1]) * float(read.sigma[ranks[1] - 1]) * cosine
        floor = resolution * float(write.sigma[0]) * float(read.sigma[0])
        if least > max(product_error(write, read), floor):
            rank = min(ranks)
    moments = spectra.product_square[i].double(), spectra.product_fourth[i].double()
    return ComposedMap(
        spectrum=None,
        rank=rank,
        participation=float(participation_of_moments(*moments)),
        kernel_intersection=(
            None if rank is None else kernel_intersection(rank_write=ranks[0], rank_product=rank)
        ),
    )


def _least_cosine(cosines: Tensor, r1: int, r2: int, d: int) -> float:
    """A lower bound of the cosines between two leading spaces, by what the larger one lacks.

    Of use where that is little: the sines are at most the norm of the overlaps with it.
    """
    if r1 > r2:
        cosines, r1, r2 = cosines.mT, r2, r1
    if r2 == d:
        return 1.0
    if cosines.shape[1] < d:
        return 0.0
    return max(0.0, 1 - float(cosines[:r1, r2:].double().square().sum())) ** 0.5
