"""Relative positions of two subspaces: the orbits of GL(d) on Gr(r1, d) × Gr(r2, d).

Two pairs (V, U) are related by an invertible change of basis exactly when dim(V ∩ U) agrees. So
the orbits are X_k = {dim(V ∩ U) = k}, their closures form a chain, and the one closed orbit, where
the smaller space lies in the larger, is the variety of partial flags.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry.intersection import forced_dimension, intersection_dimension


@dataclass(frozen=True)
class RelativePosition:
    """The orbit X_k = {(V, U): dim V = r1, dim U = r2, dim(V ∩ U) = k} in R^d.

    Compares by closure: `x <= y` says that X_x lies in the closure of X_y.

    Attributes
    ----------
    d
        Dimension of the space.
    r1, r2
        Dimensions of V and U.
    k
        Dimension of the intersection, max(0, r1 + r2 - d) ≤ k ≤ min(r1, r2).

    References
    ----------
    .. [1] M. Brion, Lectures on the geometry of flag varieties, in: Topics in Cohomological
       Studies of Algebraic Varieties, Birkhäuser 2005, arXiv math/0410240.

    Examples
    --------
    >>> from flagscope.geometry import RelativePosition
    >>> generic = RelativePosition(d=8, r1=3, r2=4, k=0)
    >>> [position.orbit_dimension for position in generic.closure()]
    [31, 29, 25, 19]
    >>> RelativePosition(d=8, r1=3, r2=4, k=2) <= generic
    True
    """

    d: int
    r1: int
    r2: int
    k: int

    def __post_init__(self) -> None:
        _check_dimensions(self.d, self.r1, self.r2)
        lowest, highest = forced_dimension(self.r1, self.r2, self.d), min(self.r1, self.r2)
        if not lowest <= self.k <= highest:
            raise InputError(
                f"subspaces of dimensions {self.r1} and {self.r2} of R^{self.d} cannot meet in "
                f"dimension {self.k}",
                hint=f"k lies between {lowest} and {highest}",
            )

    @property
    def orbit_dimension(self) -> int:
        """dim X_k = k(d-k) + (r1-k)(d-r1) + (r2-k)(d-r2).

        The choice of V ∩ U, then of V and of U around it.
        """
        d, r1, r2, k = self.d, self.r1, self.r2, self.k
        return k * (d - k) + (r1 - k) * (d - r1) + (r2 - k) * (d - r2)

    @property
    def codimension(self) -> int:
        """Codimension of the orbit in Gr(r1, d) × Gr(r2, d), which is k(d - r1 - r2 + k)."""
        return self.k * (self.d - self.r1 - self.r2 + self.k)

    @property
    def is_open(self) -> bool:
        """Whether this is the generic position, the one open orbit."""
        return self.k == forced_dimension(self.r1, self.r2, self.d)

    @property
    def is_closed(self) -> bool:
        """Whether this is the one closed orbit: V ⊆ U or U ⊆ V, a flag."""
        return self.k == min(self.r1, self.r2)

    def closure(self) -> tuple[RelativePosition, ...]:
        """The orbits that make up the closure of this one, largest first: all j ≥ k."""
        return tuple(
            RelativePosition(self.d, self.r1, self.r2, j)
            for j in range(self.k, min(self.r1, self.r2) + 1)
        )

    def representative(
        self, *, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "d r1"], Float[Tensor, "d r2"]]:
        """A pair (V, U) in this position, spanned by coordinate axes."""
        axes = torch.eye(self.d, dtype=dtype)
        apart = axes[:, self.r1 : self.r1 + self.r2 - self.k]
        return axes[:, : self.r1], torch.cat([axes[:, : self.k], apart], dim=1)

    def __le__(self, other: object) -> bool:
        if not isinstance(other, RelativePosition):
            return NotImplemented
        same = (self.d, self.r1, self.r2) == (other.d, other.r1, other.r2)
        return same and self.k >= other.k

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, RelativePosition):
            return NotImplemented
        return self <= other and self != other


def strata(d: int, r1: int, r2: int) -> tuple[RelativePosition, ...]:
    """All relative positions of subspaces of dimensions r1 and r2, from open to closed.

    Raises
    ------
    InputError
        Dimensions outside 0..d.

    Examples
    --------
    >>> from flagscope.geometry import strata
    >>> [position.k for position in strata(5, 3, 4)]
    [2, 3]
    """
    _check_dimensions(d, r1, r2)
    return RelativePosition(d, r1, r2, forced_dimension(r1, r2, d)).closure()


def relative_position(
    v: Float[Tensor, "d r1"], u: Float[Tensor, "d r2"], *, tolerance: float = 0.0
) -> RelativePosition:
    """The relative position of two subspaces.

    Parameters
    ----------
    v, u
        Orthonormal bases.
    tolerance
        Uncertainty of the sines of their principal angles, as for `intersection_dimension`.

    Raises
    ------
    InputError
        Columns that are not orthonormal, or a tolerance at which the intersection cannot be
        resolved.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import relative_position
    >>> axes = torch.eye(4)
    >>> relative_position(axes[:, :2], axes[:, 1:3])
    RelativePosition(d=4, r1=2, r2=2, k=1)
    """
    count = intersection_dimension(v, u, tolerance=tolerance)
    d, r1, r2 = v.shape[0], v.shape[1], u.shape[1]
    if count.dimension is None:
        raise InputError(
            f"the intersection cannot be resolved at a tolerance of {count.tolerance:.2g}",
            hint="take fewer leading directions, or weights stored with more digits",
        )
    return RelativePosition(d, r1, r2, count.dimension)


def _check_dimensions(d: int, r1: int, r2: int) -> None:
    if d < 0 or not 0 <= r1 <= d or not 0 <= r2 <= d:
        raise InputError(
            f"subspaces of dimensions {r1} and {r2} do not fit in R^{d}",
            hint="dimensions lie between 0 and d",
        )
