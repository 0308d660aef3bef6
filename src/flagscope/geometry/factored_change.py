"""A change of low rank from its factors: norm, singular values, spaces, inner products, at O(d r²).

The change s·B A itself, of size d², is never formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError


@dataclass(frozen=True, eq=False)
class FactoredChange:
    """s·B A = Q C Zᵀ with orthonormal columns Q, Z.

    Attributes
    ----------
    write, read
        Q (m, k) and Z (n, l), float64, k = min(m, r), l = min(n, r).
    core
        C (k, l).
    """

    write: Float[Tensor, "m k"]
    read: Float[Tensor, "n l"]
    core: Float[Tensor, "k l"]

    @property
    def norm(self) -> float:
        """Frobenius norm of the change."""
        return float(self.core.norm())

    @cached_property
    def singular_values(self) -> Float[Tensor, " p"]:
        """Those that the factors allow, descending."""
        return torch.linalg.svdvals(self.core)

    def spaces(self, rank: int) -> tuple[Float[Tensor, "m rank"], Float[Tensor, "n rank"]]:
        """Leading left and right singular vectors of the change."""
        u, _, vh = torch.linalg.svd(self.core, full_matrices=False)
        return self.write @ u[:, :rank], self.read @ vh[:rank].T


def factored_change(
    b: Float[Tensor, "m r"], a: Float[Tensor, "r n"], *, scaling: float = 1.0
) -> FactoredChange:
    """The change s·B A in orthonormal bases of its factors' spaces.

    Parameters
    ----------
    b, a
        The factors.
    scaling
        s.

    Returns
    -------
    FactoredChange
        Accurate to a few ε of ‖B‖‖A‖|s|.

    Raises
    ------
    InputError
        If the factors do not chain.

    References
    ----------
    G. H. Golub, C. F. Van Loan, Matrix Computations, 4th edition, 2013, section 5.2.

    Examples
    --------
    >>> import torch
    >>> change = factored_change(torch.eye(3)[:, :2], torch.eye(4)[:2], scaling=3.0)
    >>> change.norm, change.singular_values.tolist()
    (4.24..., [3.0, 3.0])
    """
    if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise InputError(
            f"factors of shapes {tuple(b.shape)} and {tuple(a.shape)} have no product",
            hint="pass B of shape (m, r) and A of shape (r, n)",
        )
    left, right = (torch.linalg.qr(factor.to(torch.float64)) for factor in (b, a.T))
    return FactoredChange(left.Q, right.Q, scaling * (left.R @ right.R.T))


def inner_of_changes(one: FactoredChange, two: FactoredChange) -> float:
    """⟨ΔW₁, ΔW₂⟩ = tr(ΔW₁ᵀ ΔW₂).

    Examples
    --------
    >>> import torch
    >>> change = factored_change(torch.eye(3)[:, :2], torch.eye(4)[:2])
    >>> inner_of_changes(change, change)
    2.0
    """
    across = (one.write.T @ two.write) @ two.core @ (two.read.T @ one.read)
    return float((one.core * across).sum())
