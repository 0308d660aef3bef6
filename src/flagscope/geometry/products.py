"""Singular values of the product W2 W1 of a pair, as exact as ranks need them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry.gram import gram_singular_values
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
