"""A few numbers of a matrix from which the norm of its difference from another is estimated."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SKETCH_SIZE = 8191
"""Numbers of a sketch: a prime, so that no row or column falls into a few of them."""

_SEED = 20_000  # of the signs, the same for all matrices
_LINES = 1 << 9  # sketch lengths that are summed at a time


def norm_sketch(w: Float[Tensor, "p m"], *, size: int = SKETCH_SIZE) -> Float[Tensor, " s"]:
    """Sums of the entries of a matrix with fixed random signs.

    Entry i, counted by rows, is added with a sign of its own to number i mod s. The sketch is
    linear in W: the squared norm of the difference of two sketches is an unbiased estimate of
    ‖W_a - W_b‖_F², with the variance that `sketch_variance` gives.

    Parameters
    ----------
    w
        One matrix.
    size
        s, a prime.

    Returns
    -------
    Tensor
        s numbers in float64; of a smaller matrix its entries, and the norm is exact.

    References
    ----------
    N. Alon, Y. Matias, M. Szegedy, "The space complexity of approximating the frequency moments",
    STOC 1996; M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams",
    ICALP 2002, for one number for each entry.

    Examples
    --------
    >>> a, b = torch.ones(100, 200), torch.zeros(100, 200)
    >>> square = (norm_sketch(a) - norm_sketch(b)).square().sum()
    >>> abs(float(square) / 20_000 - 1) < 4 * sketch_variance(20_000) ** 0.5
    True
    """
    entries = w.reshape(-1)
    if len(entries) <= size:
        return entries.double()
    source = np.random.Philox(_SEED)
    sums = torch.zeros(size, dtype=torch.float64)
    step = _LINES * size
    for start in range(0, len(entries), step):
        part = entries[start : start + step]
        part = part.double() * random_signs(source, len(part)).to(part.device)
        whole = len(part) // size * size
        sums += part[:whole].view(-1, size).sum(0).cpu()
        sums[: len(part) - whole] += part[whole:].cpu()
    return sums


def sketch_variance(entries: int, *, size: int = SKETCH_SIZE) -> float:
    """Variance of the squared norm of a sketch over its square, for entries of about one size.

    Examples
    --------
    >>> sketch_variance(100)
    0.0
    >>> round(sketch_variance(1_000_000) ** 0.5, 4)
    0.0156
    """
    if entries <= size:
        return 0.0
    return 2 / size * (1 - size / entries)


def random_signs(source: np.random.Philox, count: int) -> Float[Tensor, " n"]:
    """Random signs from the next words of a generator whose stream is the same everywhere."""
    words = source.random_raw((count + 63) // 64).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:count]
    return torch.from_numpy(2.0 * bits - 1.0)
