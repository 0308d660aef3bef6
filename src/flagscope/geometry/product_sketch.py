"""A few numbers of a product of two thin maps, from its factors, as of `norm_sketch`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.norm_sketch import norm_sketch, random_signs

PRODUCT_SKETCH_SIZE = 2039
"""Numbers of a sketch: a prime, so that no row or column falls into a few of them."""

_SEEDS = (20_001, 20_002)  # of the signs of rows and of columns, the same for all products
_LENGTH = 4096  # of the transforms: two lines of 2,039 do not wrap


def product_sketch(left: Float[Tensor, "p d"], right: Float[Tensor, "d m"]) -> Float[Tensor, " s"]:
    """Sums of the entries of a product P = L R with fixed random signs, without forming it.

    Entry (i, j) is added with the sign of its row and that of its column to number i·m + j mod s.
    So the sketch of an outer product is the cyclic convolution of sketches of its two vectors, and
    that of P is a sum of d of them: O(d (p + m + s log s)). The sketch is linear in P, and the
    squared norm of a difference of two is an unbiased estimate of ‖P_a - P_b‖_F². For entries of
    about one size its variance is that of `sketch_variance` where p and m are at most s; in larger
    ones entries of one line meet too, which makes it up to three times that for a difference of
    rank one.

    Parameters
    ----------
    left, right
        The factors.

    Returns
    -------
    Tensor
        s = 2,039 numbers in float64; of a product of fewer entries those, and the norm is exact.

    References
    ----------
    N. Pham, R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps", KDD 2013.

    Examples
    --------
    >>> draw = torch.Generator().manual_seed(0)
    >>> left, right = torch.randn(100, 4, generator=draw), torch.randn(4, 200, generator=draw)
    >>> square = (product_sketch(2 * left, right) - product_sketch(left, right)).square().sum()
    >>> abs(float(square / (left @ right).square().sum()) - 1) < 0.1
    True
    """
    rows, columns = left.shape[0], right.shape[1]
    if rows * columns <= PRODUCT_SKETCH_SIZE:
        return norm_sketch(left.double() @ right.double(), size=PRODUCT_SKETCH_SIZE)
    # A row takes as many numbers as it has columns; of none that is a multiple of s.
    stride = columns if columns % PRODUCT_SKETCH_SIZE else columns + 1
    one = _line_sketches(left.double(), stride, _SEEDS[0])
    two = _line_sketches(right.double().mT, 1, _SEEDS[1])
    whole = torch.fft.irfft(
        (torch.fft.rfft(one, n=_LENGTH) * torch.fft.rfft(two, n=_LENGTH)).sum(0), n=_LENGTH
    )
    size = PRODUCT_SKETCH_SIZE
    return (whole[:size] + whole[size : 2 * size]).cpu()


def _line_sketches(factor: Float[Tensor, "p d"], stride: int, seed: int) -> Float[Tensor, "d s"]:
    """The sketch of each column, entry i added to number i·stride."""
    count = factor.shape[0]
    signs = random_signs(np.random.Philox(seed), count).to(factor)
    places = torch.arange(count, device=factor.device) * stride % PRODUCT_SKETCH_SIZE
    sums = factor.new_zeros(PRODUCT_SKETCH_SIZE, factor.shape[1])
    return sums.index_add_(0, places, signs[:, None] * factor).mT
