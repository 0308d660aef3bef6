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
from flagscope.geometry.gram import gram_singular_values

# Rounding of the singular values of a block of cosines, in units of roundoff: a bound that
# no block comes near (their error is a few units times the root of the size).
_BLOCK_ERROR = 1000
# The same for small sines, which are summed from overlaps that are small themselves.
_SINE_ERROR = 30
# Blocks of cosines with as many rows and columns go by their Gram matrix.
_LARGE = 192


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


def cosines_of_overlaps(overlaps: Float[Tensor, "*batch p q"]) -> Float[Tensor, "*batch k"]:
    """Principal cosines, descending, from the inner products K = XᵀY of two orthonormal bases.

    Nothing is checked, as K alone does not show whether the bases are orthonormal.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import cosines_of_overlaps
    >>> cosines_of_overlaps(torch.tensor([[0.0, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.5]
    """
    return torch.linalg.svdvals(overlaps).clamp(max=1)


@dataclass(frozen=True, eq=False)
class LeadingAngles:
    """Principal angles of two leading singular spaces.

    Attributes
    ----------
    cosines
        The min(r1, r2) principal cosines, descending; max(0, r1 + r2 - d) are 1 by dimension.
    sines
        The sines, ascending, where they were found directly and not from the cosines.
    error
        Bound on the rounding of the sines if those are known, otherwise of the cosines.
    """

    cosines: Float[Tensor, " k"]
    sines: Float[Tensor, " k"] | None
    error: float

    def count_within(self, sine: float, *, rounding: float) -> int:
        """Number of angles whose sine may be at most this.

        `rounding` is that of the singular vectors, which cosines near 1 take over as it is.
        """
        if self.sines is not None:
            return int((self.sines <= sine + self.error).sum())
        # A sine within the bound has its cosine above this, as the cosines are known.
        least = (1 - sine**2) ** 0.5 - rounding - self.error
        return int((self.cosines > least).sum())


def leading_angles(
    overlaps: Float[Tensor, "p q"], rank_write: int, rank_read: int, d: int
) -> LeadingAngles:
    """Principal angles of the top-r1 space V and the top-r2 space U in R^d.

    Parameters
    ----------
    overlaps
        K, inner products of the left singular vectors of W1 with the right ones of W2.
    rank_write, rank_read
        r1 and r2, at least 1.
    d
        Dimension of the shared space.

    References
    ----------
    .. [1] Å. Björck, G. H. Golub, Numerical methods for computing angles between linear
       subspaces, Math. Comp. 27 (1973) 579-594, for cosines and sines.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import leading_angles
    >>> leading_angles(torch.eye(3), 2, 1, 3).cosines.tolist()
    [1.0]
    """
    sines = _sines_of_complement(overlaps, rank_write, rank_read, d)
    if sines is not None:
        # Sines end at the rounding of K, and as roots of Gram eigenvalues at that of the roundoff.
        root = 4 * torch.finfo(torch.float64).eps ** 0.5
        error = max(_SINE_ERROR * torch.finfo(overlaps.dtype).eps, root)
        return LeadingAngles((1 - sines.square()).clamp(0, 1).sqrt(), sines, error)
    block = overlaps[:rank_write, :rank_read]
    # Of large blocks by the Gram matrix, a third of the work: cosines above 1e-4 keep eight digits,
    # and those below are far from any threshold.
    large = min(block.shape) >= _LARGE
    cosines = gram_singular_values(block).clamp(max=1) if large else cosines_of_overlaps(block)
    return LeadingAngles(cosines, None, _BLOCK_ERROR * torch.finfo(cosines.dtype).eps)


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    return cosines_of_overlaps(x.mT @ y)


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


def _sines_of_complement(overlaps: Tensor, r1: int, r2: int, d: int) -> Float[Tensor, " k"] | None:
    """All min(r1, r2) principal sines in float64, ascending, by way of an orthogonal complement.

    Where K holds a whole basis of R^d on the side of the larger space, what it has beyond that
    space spans the complement, and the overlaps with it have the sines as singular values: a
    smaller eigenproblem where the larger space is more than half of R^d, and sines that are good to
    roundoff where they are small. None where K does not hold it, or the smaller space is small.
    """
    if r1 > r2:
        overlaps, r1, r2 = overlaps.mT, r2, r1
    rest = d - r2
    if overlaps.shape[1] < d or r1 < _LARGE:
        return None
    # The sines that are not among the singular values are zero, as dimensions force.
    forced = torch.zeros(max(0, r1 - rest), dtype=torch.float64, device=overlaps.device)
    if rest == 0:
        return forced
    return torch.cat([forced, gram_singular_values(overlaps[:r1, r2:]).flip(-1).clamp(max=1)])
