"""Degeneration of a pair of subspaces to a flag along a one-parameter subgroup.

Every pair (V, U) can be moved, within its GL(d)-orbit, arbitrarily near to a pair where the
smaller space lies in the larger. The path is explicit in principal vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry.angles import principal_vectors
from flagscope.geometry.flags import Flag
from flagscope.geometry.spaces import orthogonal_complement
from flagscope.geometry.strata import RelativePosition, relative_position


@dataclass(frozen=True, eq=False)
class Degeneration:
    """The path t ↦ g_t (V, U), in the orbit of (V, U) for t ≠ 0 and a flag at t = 0.

    Attributes
    ----------
    position
        The orbit of the path for t ≠ 0.
    shared
        Shape (d, k): orthonormal basis of V ∩ U.
    moving, target
        Shape (d, r - k): principal vectors a_j of the smaller space outside the intersection and
        their partners b_j in the larger one.
    larger
        Shape (d, max(r1, r2)): the space that stays.
    """

    position: RelativePosition
    shared: Float[Tensor, "d k"]
    moving: Float[Tensor, "d m"]
    target: Float[Tensor, "d m"]
    larger: Float[Tensor, "d r"]

    def subspaces(self, t: float) -> tuple[Float[Tensor, "d r1"], Float[Tensor, "d r2"]]:
        """Orthonormal bases of (V, U) at parameter t; those of the original pair at t = 1.

        The smaller space is spanned by the shared vectors and b_j + t (a_j - b_j).
        """
        # Different principal pairs are orthogonal to each other, so only lengths need mending.
        path = self.target + t * (self.moving - self.target)
        smaller = torch.cat([self.shared, path / torch.linalg.vector_norm(path, dim=0)], dim=1)
        if self.position.r1 <= self.position.r2:
            return smaller, self.larger
        return self.larger, smaller

    def transform(self, t: float) -> Float[Tensor, "d d"]:
        """The element g_t of GL(d), t ≠ 0, that carries (V, U) to its place at parameter t.

        It scales every e_j = a_j - b_j by t and fixes the larger space and the orthogonal
        complement of V + U. Its determinant is t^(r - k).
        """
        if t == 0:
            raise InputError(
                "the transformation at t = 0 is not invertible",
                hint="use subspaces(0) or flag() for the limit",
            )
        # Dual vectors to the e_j that vanish on what is fixed. They lie in the part of V + U
        # orthogonal to the larger space, cleaned twice because small angles leave little of it.
        difference = self.moving - self.target
        normal = self._outside(self.moving)
        normal = self._outside(normal / torch.linalg.vector_norm(normal, dim=0))
        normal, _ = torch.linalg.qr(normal)
        dual = torch.linalg.solve(normal.mT @ difference, normal.mT)
        identity = torch.eye(self.position.d, dtype=dual.dtype, device=dual.device)
        return identity + (t - 1) * difference @ dual

    def flag(self) -> Flag:
        """The limit at t = 0, a flag of type (min(r1, r2), max(r1, r2))."""
        small = torch.cat([self.shared, self.target], dim=1)
        # Within the larger space, so that the flag nests exactly even where the shared vectors
        # lie in it only up to the tolerance.
        inner, _ = torch.linalg.qr(self.larger.mT @ small)
        rest = orthogonal_complement(inner)
        ranks = sorted({inner.shape[1], self.larger.shape[1]} - {0})
        return Flag(self.larger @ torch.cat([inner, rest], dim=1), tuple(ranks))

    def _outside(self, vectors: Tensor) -> Tensor:
        return vectors - self.larger @ (self.larger.mT @ vectors)


def degeneration(
    v: Float[Tensor, "d r1"], u: Float[Tensor, "d r2"], *, tolerance: float = 0.0
) -> Degeneration:
    """A one-parameter degeneration of (V, U) to a flag.

    With principal vectors v_j of V and u_j of U (r1 ≤ r2; otherwise the roles are exchanged) and
    e_j = v_j - u_j, the subgroup that scales each e_j by t keeps U and moves v_j to u_j + t e_j.
    The component of v_j orthogonal to U cannot serve as e_j: where v_j is orthogonal to U, that is
    all of v_j, and the path would not move.

    Parameters
    ----------
    v, u
        Orthonormal bases of two subspaces of R^d.
    tolerance
        Uncertainty of the sines of principal angles, as for `intersection_dimension`. Directions
        that count as shared stay.

    Raises
    ------
    InputError
        As `relative_position`.

    References
    ----------
    .. [1] D. Mumford, J. Fogarty, F. Kirwan, Geometric Invariant Theory, 3rd edition, Springer
       1994, section 2.1 (one-parameter subgroups).

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import degeneration, principal_angles
    >>> axes = torch.eye(3, dtype=torch.float64)
    >>> path = degeneration(axes[:, :1], axes[:, 1:])
    >>> [round(principal_angles(*path.subspaces(t)).item(), 4) for t in (1.0, 0.5, 0.0)]
    [1.5708, 0.7854, 0.0]
    >>> path.flag().type
    (1, 2)
    """
    position = relative_position(v, u, tolerance=tolerance)
    pairs = principal_vectors(v, u)
    k = position.k
    if position.r1 <= position.r2:
        small, large, whole = pairs.x, pairs.y, u
    else:
        small, large, whole = pairs.y, pairs.x, v
    return Degeneration(
        position=position,
        shared=small[:, :k],
        moving=small[:, k:],
        target=large[:, k:],
        larger=whole.to(small.dtype),
    )
