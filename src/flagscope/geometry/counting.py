"""Ranks of large maps by counting: how many singular values lie above a threshold, not which."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.equilibrate import equilibrated
from flagscope.geometry.gram import gram
from flagscope.geometry.inertia import count_above
from flagscope.geometry.leading_space import leading_space
from flagscope.geometry.signal import bulk_edge, signal_rank

# Share of the largest eigenvalue that round-off of a Gram matrix in float32 may hide.
_HIDDEN = 30 * torch.finfo(torch.float32).eps
# Small eigenvalues are found in a space of those below this share of the largest; beyond so large a
# part of all of them, the count is made in float64.
_SMALL, _MOST = 1e-4, 0.125
# From this share of it on, eigenvalues of a Gram matrix in float32 are known well enough.
_CLEAR = 100 * _HIDDEN
_ITERATIONS = 8
# Up to this part of all, 1/32, the eigenvalues that stand out take less time by a Krylov space and
# an inertia than all of them do.
_FEW = 32
# Rows of a map that are widened to float64 at a time.
_ROWS = 1024


def counted_signal_rank(w: Float[Tensor, "rows columns"], *, generator: torch.Generator) -> int:
    """The signal rank of one map, as `signal_rank_of` gives it, without its spectrum.

    The edge of the bulk is tested against the equilibrated map's Gram matrix by a Cholesky
    factorisation. Where a few stand out, the leading eigenvalues are computed by a block Krylov
    space, and the count of them is confirmed by the inertia at the edge; where many do, or the
    count is not confirmed, all eigenvalues are computed.

    Parameters
    ----------
    w
        The map; a norm's gain that is to be folded into it already is.
    generator
        Of the random block.

    Examples
    --------
    >>> w = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    >>> spike = torch.outer(torch.ones(64), torch.ones(256)) / 4
    >>> [counted_signal_rank(x, generator=torch.Generator().manual_seed(0)) for x in (w, w + spike)]
    [0, 1]
    """
    even = equilibrated(w)
    values = even.values if w.shape[0] <= w.shape[1] else even.values.mT
    matrix = gram(values)
    square = float(matrix.diagonal().double().sum())
    shape = int(even.rows), int(even.columns)
    count = count_above(matrix, bulk_edge(square, shape))
    if count == 0:
        return 0
    n = len(matrix)
    while _FEW * count < n:
        wanted = min(n, count + max(8, count // 4))
        space = leading_space(
            lambda x: matrix @ x, n, wanted, generator=generator, dtype=matrix.dtype,
            device=matrix.device, tolerance=1e-3,
        )  # fmt: skip
        found = signal_rank(space.values.sqrt(), square=square, shape=shape, gram=True)
        rank = int(found.ranks)
        if bool(found.complete):
            left = square - float(space.values[:rank].sum())
            if count_above(matrix, bulk_edge(left, shape, rank)) == rank:
                return rank
            break
        count = wanted
    sigma = torch.linalg.eigvalsh(matrix).clamp_min(0).sqrt()
    return int(signal_rank(sigma, square=square, shape=shape, gram=True).ranks)


def counted_rank(
    raw: Float[Tensor, "n n"],
    w: Float[Tensor, "n k"],
    *,
    threshold: float,
    top: float,
    generator: torch.Generator,
) -> tuple[int, float]:
    """Number of singular values of W above a threshold, and a lower bound of the least of these.

    Parameters
    ----------
    raw
        W Wᵀ, whose size is the smaller of W's.
    w
        The map.
    threshold
        In the unit of its singular values.
    top
        The largest singular value.
    generator
        Of a random block.

    Returns
    -------
    tuple of int and float
        Where a Cholesky factorisation shows that all lie clear of the threshold and of round-off,
        the bound is what it was made with. Otherwise the few small ones are found in float64.

    Examples
    --------
    >>> w = torch.diag(torch.tensor([2.0, 1.0, 1e-6]))
    >>> counted_rank(w @ w, w, threshold=1e-3, top=2.0, generator=torch.Generator())[0]
    2
    """
    n = len(raw)
    single = raw.dtype == torch.float32
    safe = threshold**2 + (_HIDDEN * top**2 if single else 0.0)
    if count_above(raw, safe) == n:
        return n, math.sqrt(safe)
    if single and threshold**2 > _CLEAR * top**2:
        return count_above(raw, threshold**2), threshold
    shift = max(_SMALL * top**2, 4 * threshold**2)
    small = n - count_above(raw, shift)
    if not single or small > _MOST * n:
        wide = raw if not single else gram(w.double())
        return count_above(wide, threshold**2), threshold
    values = _smallest(raw, w, small, shift, generator)
    above = values > threshold**2
    least = float(values[above].amin()) if bool(above.any()) else shift
    return n - int((~above).sum()), math.sqrt(least)


def _smallest(
    raw: Tensor, w: Tensor, count: int, shift: float, generator: torch.Generator
) -> Float[Tensor, " k"]:
    """The smallest `count` eigenvalues of W Wᵀ in float64, by inverse subspace iteration."""
    n = len(raw)
    width = min(n, count + max(16, count // 2))
    shifted = raw.clone()
    shifted.diagonal().add_(0.1 * shift)
    factor = torch.linalg.cholesky(shifted)
    drawn = torch.randn(n, width, generator=generator, dtype=torch.float64)
    x = drawn.to(raw.device, raw.dtype)
    for _ in range(_ITERATIONS):
        x = torch.linalg.qr(torch.cholesky_solve(x, factor))[0]
    wide = torch.linalg.qr(x.double())[0]
    inside = torch.zeros(width, width, dtype=torch.float64, device=raw.device)
    for columns in w.split(_ROWS, dim=1):
        image = columns.mT.double() @ wide
        inside += image.mT @ image
    return torch.linalg.eigvalsh(inside).clamp_min(0)[:count]
