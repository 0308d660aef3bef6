"""Signal rank: how many singular values stand out of the bulk that independent entries have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import non_negative, real_tensor
from flagscope.geometry.equilibrate import equilibrated

# The point that a Tracy-Widom variable of order 1 exceeds with probability 1 %: 2.0234 (M. Prähofer
# and H. Spohn's tables; `flagscope.null.tracy_widom_quantile`, which this folder cannot import).
_EDGE_POINT = 2.0234


# Up to this size the Gram's eigenvalues are computed in float64, in less than half a second. Those
# of a larger map of float32 are computed in float32: they err by less than 1e-6 of the largest, and
# the edge, which is 4/m of the largest at the least, fluctuates by p^{-2/3} of itself.
_LARGE = 1024

# Entries of the maps taken at a time: 128 MiB in float64.
_BLOCK = 1 << 24


@dataclass(frozen=True)
class SignalRank:
    """Numbers of singular values that stand out of the bulk.

    Attributes
    ----------
    ranks
        Shape (...), int64.
    complete
        Whether the count ended among the values that were given, shape (...), bool. Where it did
        not, `ranks` is the number of values given, and more may stand out.
    """

    ranks: Int[Tensor, "*batch"]
    complete: Bool[Tensor, "*batch"]


def signal_rank(
    leading: Float[Tensor, "*batch k"],
    *,
    square: float | Float[Tensor, "*batch"],
    shape: tuple[int | Int[Tensor, "*batch"], int | Int[Tensor, "*batch"]],
    gram: bool = False,
) -> SignalRank:
    """Count the singular values beyond the edge of the Marchenko-Pastur bulk.

    A p x m matrix of independent entries of variance s² has its largest eigenvalue of W Wᵀ near
    s²(√m + √p)². The edge is the 1 % point of its law. What stands out is taken from ‖W‖_F², s² is
    what is left over (p - r)(m - r) entries, and the count begins anew, until it stands still.

    Parameters
    ----------
    leading
        The largest singular values of an equilibrated matrix, in any order: all of them, or so
        many that the count ends among them.
    square
        Squared Frobenius norm, the sum of squares of all singular values.
    shape
        Rows and columns of the matrix without its zero rows and columns, in either order; numbers,
        or one a matrix.
    gram
        True if the values are roots of eigenvalues of a Gram matrix, as for `numerical_rank`.

    Returns
    -------
    SignalRank
        0 where nothing stands out: of a zero matrix, and of one with a single row or column.

    Raises
    ------
    InputError
        Values that are negative or not finite, `square` that is less than the values' own sum of
        squares, a shape that does not fit.

    Notes
    -----
    (p, m) stay fixed in the edge, for the outliers of trained maps are many, and an edge that
    shrinks with them runs away. The law is that of Gaussian entries, exact to O(p^{-2/3}).
    Equilibration removes the fluctuation of the rows' and columns' norms, so that fewer than 1 % of
    maps without signal get a rank above 0. Of ten kinds (Gaussian, uniform, orthogonal, rounded to
    bf16, float8 and 4 bits, scaled, with dead rows, t3) none did in 40,000 of 8 x 64, 5 in 15,000
    of 64 x 64, 2 in 1,000 of 128 x 512. The price is paid by small maps: one direction of strength
    3(pm)^{1/4} is found in none of 8 x 8, half of 8 x 64 and nearly all of 16 x 64. k equal
    outliers hide themselves where k > pm/(√p + √m)²: rank 0 does not say that nothing is there.
    Where nothing but round-off is left the count is of the values above it.

    References
    ----------
    I. M. Johnstone, On the distribution of the largest eigenvalue in principal components
    analysis, Ann. Statist. 29 (2001) 295-327, theorem 1.1, for the edge; M. Gavish and D. L.
    Donoho, IEEE Trans. Inf. Theory 60 (2014) 5040-5053, for a form by the median.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import signal_rank
    >>> count = signal_rank(torch.tensor([40.0, 12.0]), square=4096.0, shape=(64, 64))
    >>> int(count.ranks), bool(count.complete)
    (1, True)
    >>> bool(signal_rank(torch.tensor([40.0]), square=4096.0, shape=(64, 64)).complete)
    False
    """
    values = non_negative(leading, "leading")
    eps, values = torch.finfo(values.dtype).eps, values.double()
    batch, k = values.shape[:-1], values.shape[-1]
    rows, columns, total = (
        _expanded(value, name, batch, values.device)
        for value, name in ((shape[0], "rows"), (shape[1], "columns"), (square, "square"))
    )
    p, m = torch.minimum(rows, columns), torch.maximum(rows, columns)
    if k == 0:
        return SignalRank(torch.zeros_like(p, dtype=torch.int64), p == 0)
    values = values.sort(-1, descending=True).values
    # Over the largest value: squares of values beyond 1e154 would overflow.
    unit = torch.where(values[..., :1] > 0, values[..., :1], 1)
    power = (values / unit).square()
    rest = total / unit[..., 0] / unit[..., 0] - power.sum(-1)
    # √ε is far above what round-off takes from a sum, and far below what a caller gets wrong.
    if bool((rest < -math.sqrt(eps) * power.sum(-1)).any()):
        raise InputError(
            "square is less than the sum of squares of the values",
            hint="it is the squared Frobenius norm of the same, equilibrated matrix",
        )
    # What the values do not hold, and nothing where they are all there are.
    rest = torch.where(k >= p, 0.0, rest.clamp_min(0))
    tails = power.flip(-1).cumsum(-1).flip(-1)
    left = torch.cat([tails, torch.zeros_like(tails[..., :1])], -1) + rest[..., None]
    relative = m * eps
    rounding = relative if gram else relative.square()
    edge = _edge(p, m)
    ranks = torch.zeros_like(p, dtype=torch.int64)
    while True:
        entries = ((p - ranks) * (m - ranks)).clamp_min(1)
        variance = left.gather(-1, ranks[..., None])[..., 0] / entries
        new = (power > torch.maximum(variance * edge, rounding)[..., None]).sum(-1)
        # Each value beyond the edge holds more than its share, so the edge falls as they are taken.
        new = torch.maximum(new, ranks)
        if bool((new == ranks).all()):
            return SignalRank(ranks, (ranks < k) | (k >= p))
        ranks = new


def nothing_stands_out(
    gram: Float[Tensor, "p p"], *, square: float, shape: tuple[int, int]
) -> bool:
    """Whether an equilibrated matrix has signal rank 0, from one factorisation of its Gram matrix.

    Parameters
    ----------
    gram
        W Wᵀ, of the shorter side.
    square, shape
        As for `signal_rank`.

    Returns
    -------
    bool
        True if all eigenvalues lie below the edge by more than round-off; otherwise count them.

    Examples
    --------
    >>> w = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    >>> even = equilibrated(w).values
    >>> square = float(even.square().sum())
    >>> nothing_stands_out(even @ even.mT, square=square, shape=(64, 256))
    True
    >>> nothing_stands_out(even @ even.mT, square=square / 4, shape=(64, 256))
    False
    """
    p, m = min(shape), max(shape)
    if p == 0 or square == 0:
        return p == 0
    edge = float(_edge(*(torch.tensor([float(size)], dtype=torch.float64) for size in (p, m))))
    limit = square / (p * m) * edge * (1 - m * torch.finfo(gram.dtype).eps)
    shifted = -gram
    shifted.diagonal().add_(limit)
    return int(torch.linalg.cholesky_ex(shifted).info) == 0


def signal_rank_of(w: Float[Tensor, "*batch rows columns"]) -> Int[Tensor, "*batch"]:
    """The signal ranks of maps: equilibrated, and counted on all their singular values.

    Parameters
    ----------
    w
        Maps; a norm's gain that is to be folded into them already is.

    Returns
    -------
    Tensor
        int64, of the leading shape, on the device of `w`.

    Raises
    ------
    InputError
        If `w` holds NaN or infinity, or has fewer than two dimensions.

    Notes
    -----
    The singular values are roots of the eigenvalues of the smaller Gram matrix, in float64 up to a
    size of 1024 and in the precision of `w` above. See `equilibrated` and `signal_rank`; what
    storage noise hides is for the caller to take off (`RankRule.ranks`).

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import signal_rank_of
    >>> w = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    >>> spike = torch.outer(torch.ones(64), torch.ones(256)) / 4
    >>> int(signal_rank_of(w)), int(signal_rank_of(w + spike))
    (0, 1)
    """
    w = real_tensor(w, "w", ndim=2)
    *batch, p, m = w.shape
    if w.numel() == 0:
        return torch.zeros(batch, dtype=torch.int64, device=w.device)
    dtype = torch.float64 if min(p, m) <= _LARGE else w.dtype
    ranks = []
    for maps in w.reshape(-1, p, m).split(max(1, _BLOCK // (p * m))):
        even = equilibrated(maps)
        values = even.values.to(dtype)
        gram = values @ values.mT if p <= m else values.mT @ values
        sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
        square = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
        shape = even.rows, even.columns
        ranks.append(signal_rank(sigma, square=square, shape=shape, gram=True).ranks)
    return torch.cat(ranks).reshape(batch)


def bulk_edge(square: float, shape: tuple[int, int], rank: int = 0) -> float:
    """The eigenvalue of W Wᵀ from which on one stands out of the bulk, as `signal_rank` takes it.

    Parameters
    ----------
    square
        What of ‖W‖_F² lies outside the `rank` leading directions.
    shape
        Rows and columns that are not zero.
    rank
        Directions that stand out already.

    Examples
    --------
    >>> round(bulk_edge(64.0 * 256.0, (64, 256)) ** 0.5, 1)  # just above √256 + √64
    24.5
    """
    p, m = min(shape), max(shape)
    edge = float(_edge(torch.tensor(float(p)), torch.tensor(float(m))))
    return square / max(1, (p - rank) * (m - rank)) * edge if square > 0 else 0.0


def _edge(p: Float[Tensor, "*batch"], m: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 % point of the largest eigenvalue of W Wᵀ for p x m independent entries of variance 1."""
    a, b = (m - 1).clamp_min(0).sqrt(), p.sqrt()
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    # A single entry has no bulk to stand out of.
    return torch.where(m > 1, (a + b).square() + _EDGE_POINT * spread, math.inf)


def _expanded(
    value: float | Tensor, name: str, batch: torch.Size, device: torch.device
) -> Float[Tensor, "*batch"]:
    value = torch.as_tensor(value, dtype=torch.float64, device=device)
    if not bool((value >= 0).all()) or not bool(torch.isfinite(value).all()):
        raise InputError(
            f"{name} must be finite and not negative",
            hint="shape counts the rows and columns that are not zero, square is ‖W‖_F²",
        )
    try:
        return value.expand(batch)
    except RuntimeError:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}; expected {tuple(batch)}",
            hint="give one number, or one for each matrix of the batch",
        ) from None
