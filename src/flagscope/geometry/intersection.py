"""Dimension of the intersection of two subspaces that are known with finite accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import real_tensor, two_bases
from flagscope.geometry.angles import LeadingAngles, principal_sines
from flagscope.geometry.perturbation import NoisyMap
from flagscope.geometry.spaces import singular_space
from flagscope.geometry.spectra import eigensystem

#: Beyond this uncertainty of the sines, directions of the two spaces cannot be distinguished.
LARGEST_TOLERANCE = 0.3


def forced_dimension(r1: int, r2: int, d: int) -> int:
    """The dimension that the intersection of two subspaces of R^d has at least, by Grassmann.

    Parameters
    ----------
    r1, r2
        Dimensions of the subspaces.
    d
        Dimension of the space.

    Examples
    --------
    >>> forced_dimension(6, 5, 8), forced_dimension(2, 5, 8)
    (3, 0)
    """
    return max(0, r1 + r2 - d)


@dataclass(frozen=True, eq=False)
class IntersectionCount:
    """Number of principal angles that are zero within the accuracy of the spaces.

    Attributes
    ----------
    dimension
        dim(V ∩ U), or None if unresolvable.
    status
        "ok", or "unresolvable" if the tolerance exceeds 0.3.
    sines
        Sines of the principal angles, ascending.
    tolerance
        The tolerance that was used, rounding error included.
    """

    dimension: int | None
    status: Literal["ok", "unresolvable"]
    sines: Float[Tensor, " k"]
    tolerance: float


def intersection_dimension(
    v: Float[Tensor, "d p"], u: Float[Tensor, "d q"], *, tolerance: float = 0.0
) -> IntersectionCount:
    """Dimension of V ∩ U: the number of principal angles whose sine is at most a tolerance.

    Sines are singular values of (I - P_U) V, never √(1 - cos²), which cannot see an angle below
    √ε.

    Parameters
    ----------
    v, u
        Orthonormal bases of two subspaces of R^d.
    tolerance
        Uncertainty of the sines. For leading singular spaces of stored matrices
        δ_1/σ_{r1} + δ_2/σ_{r2}, where δ estimates the spectral norm of the storage error and σ_r
        is the smallest singular value used: each space then turns by at most the sine δ/σ_r (Wedin,
        for a matrix of rank r). Never taken below d·ε, the rounding of the sines themselves.

    Returns
    -------
    IntersectionCount
        Without a dimension, and with status "unresolvable", if the tolerance exceeds 0.3: then
        even random spaces would seem to meet.

    Raises
    ------
    InputError
        Columns that are not orthonormal, spaces of different d, a negative tolerance.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594.
    .. [2] P.-Å. Wedin, Perturbation bounds in connection with singular value decomposition, BIT
       12 (1972) 99-111.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import intersection_dimension
    >>> axes = torch.eye(5)
    >>> intersection_dimension(axes[:, :3], axes[:, 1:4]).dimension
    2
    >>> intersection_dimension(axes[:, :3], axes[:, 1:4], tolerance=0.5).status
    'unresolvable'
    """
    v, u = two_bases(v, u, ("v", "u"))
    if v.ndim != 2 or u.ndim != 2:
        raise InputError(
            f"v and u have shapes {tuple(v.shape)} and {tuple(u.shape)}; expected two dimensions",
            hint="use intersection_dimensions for a batch",
        )
    return count_intersection(principal_sines(v, u), d=v.shape[0], tolerance=tolerance)


def intersection_dimensions(
    v: Float[Tensor, "n d p"],
    u: Float[Tensor, "n d q"],
    *,
    tolerance: float | Float[Tensor, " n"] = 0.0,
) -> list[IntersectionCount]:
    """`intersection_dimension` for each pair of a batch.

    Parameters
    ----------
    v, u
        Orthonormal bases, one pair a member; a leading dimension of 1 is repeated.
    tolerance
        One number, or one a pair.

    Raises
    ------
    InputError
        As `intersection_dimension`, or shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import intersection_dimensions
    >>> axes = torch.eye(4).expand(2, 4, 4)
    >>> counts = intersection_dimensions(axes[..., :2], axes[..., 1:], tolerance=1e-3)
    >>> [count.dimension for count in counts]
    [1, 1]
    """
    sines = principal_sines(v, u)
    if sines.ndim != 2:
        raise InputError(
            f"the spaces have leading shape {tuple(sines.shape[:-1])}; expected one dimension",
            hint="flatten the batch first",
        )
    tolerances = torch.as_tensor(tolerance, dtype=torch.float64).flatten().tolist()
    if len(tolerances) not in (1, len(sines)):
        raise InputError(
            f"{len(tolerances)} tolerances for {len(sines)} pairs", hint="give one a pair"
        )
    tolerances = tolerances * (len(sines) // len(tolerances))
    return [
        count_intersection(row, d=v.shape[-2], tolerance=one)
        for row, one in zip(sines, tolerances, strict=True)
    ]


def count_intersection(
    sines: Float[Tensor, " k"], *, d: int, tolerance: float = 0.0
) -> IntersectionCount:
    """Count the zero principal angles among given sines, as `intersection_dimension` does.

    Parameters
    ----------
    sines
        As `principal_sines` returns them for one pair in R^d.
    d
        Dimension of the space; sets the rounding floor d·ε.
    tolerance
        Uncertainty of the sines.

    Raises
    ------
    InputError
        Values outside [0, 1], a negative tolerance.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import count_intersection
    >>> count_intersection(torch.tensor([1e-9, 0.02, 0.7]), d=8, tolerance=0.05).dimension
    2
    """
    sines = real_tensor(sines, "sines", ndim=1)
    eps = torch.finfo(sines.dtype).eps
    if sines.ndim != 1 or bool(((sines < 0) | (sines > 1 + d * eps)).any()):
        raise InputError(
            "sines must be one row of values in [0, 1]", hint="take them from principal_sines"
        )
    if not tolerance >= 0:
        raise InputError(
            f"tolerance is {tolerance}", hint="give the uncertainty of the sines, or 0"
        )
    used = max(float(tolerance), d * eps)
    if used > LARGEST_TOLERANCE:
        return IntersectionCount(None, "unresolvable", sines, used)
    return IntersectionCount(int((sines <= used).sum()), "ok", sines, used)


def exact_intersection(
    write: NoisyMap, read: NoisyMap, angles: LeadingAngles, rank_write: int, rank_read: int
) -> int | None:
    """dim(V ∩ U) beyond what dimensions force, for leading singular spaces of stored maps.

    Where the angles leave no more than r1 + r2 - d within the noise and rounding, it is 0;
    otherwise the spaces are found again from the maps themselves, in float64.

    Parameters
    ----------
    write, read
        W1, shape (d, m1), and W2ᵀ, shape (d, m2). The sum of their `turn` is at most 0.3.
    angles
        The principal angles of V and U.
    rank_write, rank_read
        r1 and r2, their dimensions, at least 1.

    Returns
    -------
    int or None
        None if the maps leave it open.
    """
    ranks = ((write, rank_write), (read, rank_read))
    forced = forced_dimension(rank_write, rank_read, write.shape[0])
    tolerance = write.turn(rank_write) + read.turn(rank_read)
    rounding = write.rounding(rank_write) + read.rounding(rank_read)
    if angles.count_within(tolerance, rounding=rounding) <= forced:
        return 0
    unit = torch.finfo(torch.float64).eps
    exact_tolerance = sum(
        replace(map_, roundoff=min(unit, map_.roundoff)).turn(rank) for map_, rank in ranks
    )
    v, u = (_leading(map_, rank) for map_, rank in ranks)
    count = intersection_dimension(v, u, tolerance=exact_tolerance)
    return None if count.dimension is None else max(0, count.dimension - forced)


def kernel_intersection(*, rank_write: int, rank_product: int) -> int:
    """Dimension of col(W1) ∩ ker(W2), which is rank(W1) - rank(W2 W1).

    What the first map writes and the second cannot read. Unlike col(W1) ∩ row(W2) it is invariant
    under every invertible change of basis of the shared space, (g W1, W2 g⁻¹).

    Parameters
    ----------
    rank_write
        Rank of W1.
    rank_product
        Rank of W2 W1.

    Raises
    ------
    InputError
        A negative rank, or a product of larger rank than its factor.

    References
    ----------
    .. [1] C. D. Meyer, Matrix Analysis and Applied Linear Algebra, SIAM 2000, equation (4.5.1).

    Examples
    --------
    >>> from flagscope.geometry import kernel_intersection
    >>> kernel_intersection(rank_write=32, rank_product=30)
    2
    """
    if not 0 <= rank_product <= rank_write:
        raise InputError(
            f"a product of rank {rank_product} cannot come from a map of rank {rank_write}",
            hint="count both ranks with thresholds of the same accuracy",
        )
    return rank_write - rank_product


def _leading(map_: NoisyMap, rank: int) -> Float[Tensor, "d r"]:
    """The top-`rank` space in float64: via the Gram matrix of a large map that was processed in
    float32, in a third of the time of its singular value decomposition."""
    wide = map_.matrix().double()
    if map_.roundoff > torch.finfo(torch.float64).eps:
        return eigensystem(wide[None]).vectors[0, :, :rank]
    return singular_space(wide, side="left", rank=rank)
