"""Principal angles between subspaces, accurate at both ends.

A cosine does not resolve small angles (cos 1e-9 rounds to 1), a sine not those near π/2. So small
angles come from the singular values of the residual (I - P_Y) X, the others from those of XᵀY.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry._validate import broadcast_batch, two_bases


def principal_cosines(
    x: Float[Tensor, "*#batch d p"], y: Float[Tensor, "*#batch d q"]
) -> Float[Tensor, "*batch min(p,q)"]:
    """Cosines of the principal angles, in descending order.

    Absolute error a few ε. For angles below √ε use `principal_sines` or `principal_angles`.

    Parameters
    ----------
    x, y
        Orthonormal bases of two subspaces of R^d; leading dimensions broadcast.

    Raises
    ------
    InputError
        Columns that are not orthonormal, or spaces of different d.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594, theorem 1.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import principal_cosines
    >>> axes = torch.eye(4)
    >>> principal_cosines(axes[:, :2], axes[:, 1:4]).tolist()
    [1.0, 0.0]
    """
    x, y = two_bases(x, y, ("x", "y"))
    return _cosines(x, y)


def principal_sines(
    x: Float[Tensor, "*#batch d p"], y: Float[Tensor, "*#batch d q"]
) -> Float[Tensor, "*batch min(p,q)"]:
    """Sines of the principal angles, in ascending order.

    The singular values of (I - P_Y) X, or of (I - P_X) Y if Y is the smaller space: absolute
    error a few ε, which √(1 - cos²) would turn into √ε.

    Parameters
    ----------
    x, y
        Orthonormal bases of two subspaces of R^d; leading dimensions broadcast.

    Raises
    ------
    InputError
        Columns that are not orthonormal, or spaces of different d.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import principal_sines
    >>> x = torch.tensor([[1.0], [0.0]])
    >>> y = torch.tensor([[1.0], [1e-20]])
    >>> principal_sines(x, y).tolist()
    [9.99...e-21]
    """
    x, y = two_bases(x, y, ("x", "y"))
    return _sines(x, y)


def principal_angles(
    x: Float[Tensor, "*#batch d p"], y: Float[Tensor, "*#batch d q"]
) -> Float[Tensor, "*batch min(p,q)"]:
    """Principal angles in radians, in ascending order.

    Angles below π/4 are arcsines of `principal_sines`, the others arccosines of
    `principal_cosines`; the absolute error is a few ε for every angle.

    Parameters
    ----------
    x, y
        Orthonormal bases of two subspaces of R^d; leading dimensions broadcast.

    Returns
    -------
    Tensor
        Values in [0, π/2]; angle i belongs to cosine i. (`scipy.linalg.subspace_angles` returns
        them in descending order.)

    Raises
    ------
    InputError
        Columns that are not orthonormal, or spaces of different d.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594.
    .. [2] A. V. Knyazev, M. E. Argentati, Principal angles between subspaces in an A-based scalar
       product, SIAM J. Sci. Comput. 23 (2002) 2008-2040.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import principal_angles
    >>> axes = torch.eye(4, dtype=torch.float64)
    >>> tilted = torch.stack([axes[0], (axes[1] + axes[2]) / 2**0.5], dim=1)
    >>> principal_angles(axes[:, :2], tilted).div(torch.pi).round(decimals=12).tolist()
    [0.0, 0.25]
    """
    x, y = two_bases(x, y, ("x", "y"))
    return _angles(_cosines(x, y), _sines(x, y))


@dataclass(frozen=True, eq=False)
class PrincipalVectors:
    """Pairs of unit vectors that realise the principal angles of two subspaces.

    Attributes
    ----------
    x, y
        Shapes (..., d, k), k = min(p, q): orthonormal columns in the first and the second space,
        with xᵀy = diag(cos angles).
    angles
        Shape (..., k), ascending, in radians.
    """

    x: Float[Tensor, "*batch d k"]
    y: Float[Tensor, "*batch d k"]
    angles: Float[Tensor, "*batch k"]


def principal_vectors(
    x: Float[Tensor, "*#batch d p"], y: Float[Tensor, "*#batch d q"]
) -> PrincipalVectors:
    """Principal vectors of two subspaces, with their angles.

    Vectors of small angles are taken from the decomposition by sines, those of large angles from
    that by cosines: angles of 1e-12 and 1e-9 are distinguished, which no cosine can do.
    Vectors of equal angles are determined up to a common rotation.

    Parameters
    ----------
    x, y
        Orthonormal bases of two subspaces of R^d; leading dimensions broadcast.

    Raises
    ------
    InputError
        Columns that are not orthonormal, or spaces of different d.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import principal_vectors
    >>> axes = torch.eye(3)
    >>> pairs = principal_vectors(axes[:, :2], axes[:, 1:])
    >>> pairs.x.abs()
    tensor([[0., 1.],
            [1., 0.],
            [0., 0.]])
    >>> pairs.y.abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    x, y = two_bases(x, y, ("x", "y"))
    if x.shape[-1] > y.shape[-1]:
        swapped = principal_vectors(y, x)
        return PrincipalVectors(x=swapped.y, y=swapped.x, angles=swapped.angles)
    batch = broadcast_batch(x, y, ("x", "y"))
    shape = (math.prod(batch), *x.shape[-2:])
    xs = x.expand(*batch, *x.shape[-2:]).reshape(shape)
    ys = y.expand(*batch, *y.shape[-2:]).reshape(shape[0], *y.shape[-2:])
    left, right = torch.empty_like(xs), torch.empty_like(xs)
    # A loop: how many angles are small differs from pair to pair.
    for index in range(shape[0]):
        left[index], right[index] = _vectors(xs[index], ys[index])
    left, right = (vectors.reshape(*batch, *x.shape[-2:]) for vectors in (left, right))
    return PrincipalVectors(x=left, y=right, angles=_angles(_cosines(x, y), _sines(x, y)))


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.svdvals(x.mT @ y).clamp(max=1)


def _sines(x: Tensor, y: Tensor) -> Tensor:
    if x.shape[-1] > y.shape[-1]:
        x, y = y, x
    return torch.linalg.svdvals(_residual(x, y)).flip(-1).clamp(max=1)


def _residual(x: Tensor, y: Tensor) -> Tensor:
    """(I - P_Y) X, projected twice.

    The first projection leaves a part in Y as large as the rounding of YᵀX and the defect of
    YᵀY; the second removes it to second order. What remains is the rounding of X itself.
    """
    residual = x - y @ (y.mT @ x)
    return residual - y @ (y.mT @ residual)


def _angles(cosines: Tensor, sines: Tensor) -> Tensor:
    # Both are ordered by angle. sin² < ½ picks the better conditioned of the two inverses, whose
    # derivatives are then at most √2.
    angles = torch.where(sines**2 < 0.5, torch.asin(sines), torch.acos(cosines))
    # At the seam the two formulas may disagree by a rounding; order is part of the contract.
    return angles.cummax(-1).values if angles.shape[-1] else angles


def _vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Principal vectors of one pair with p ≤ q."""
    left, cosines, right = torch.linalg.svd(x.mT @ y, full_matrices=False)
    u, v = x @ left, y @ right.mT
    small = int((cosines**2 > 0.5).sum())
    if small:
        # Within the span of the small angles the sines separate what the cosines cannot.
        residual = _residual(u[:, :small], y)
        turn = torch.linalg.svd(residual, full_matrices=False)[2].mT.flip(-1)
        u = torch.cat([u[:, :small] @ turn, u[:, small:]], dim=1)
        near = y @ (y.mT @ u[:, :small])
        v = torch.cat([near / torch.linalg.vector_norm(near, dim=0), v[:, small:]], dim=1)
    return u, v
