"""Write and read spaces of attention heads in the stream: orthonormal bases and overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.geometry.overlaps import squared_overlaps
from flagscope.geometry.whitening import cholesky_whitening

# Bases of maps up to this condition go by Cholesky, at the speed of products: they are orthonormal
# to ε κ², 1e-9 at the worst, and to 1e-12 in the common case of a condition below 100.
_CONDITION = 3e3
# Entries of the maps that are in float64 at a time.
_ENTRIES = 1 << 22


@dataclass(frozen=True)
class HeadSpaces:
    """Orthonormal bases of H subspaces of R^d.

    Attributes
    ----------
    bases
        Shape (H, d, r); the columns beyond a head's rank are zero.
    ranks
        Numerical rank of each head, shape (H,).
    """

    bases: Float[Tensor, "H d r"]
    ranks: Int[Tensor, " H"]

    @property
    def d(self) -> int:
        """Dimension of the ambient space."""
        return self.bases.shape[1]


def head_spaces(
    maps: Float[Tensor, "H r d"], *, noise: Float[Tensor, " H"] | None = None
) -> HeadSpaces:
    """Row spaces of H maps, shape (H, r, d) each, at their numerical ranks.

    Parameters
    ----------
    maps
        Floating point and finite; r may exceed d. The bases are found in float64 and given in the
        type of the maps.
    noise
        Estimate of the spectral norm of the storage error of each map, shape (H,); singular values
        up to it do not count.

    Examples
    --------
    >>> import torch
    >>> spaces = head_spaces(torch.eye(4, dtype=torch.float64).reshape(2, 2, 4))
    >>> spaces.ranks, spaces.bases.shape
    (tensor([2, 2]), torch.Size([2, 4, 2]))
    """
    r, d = maps.shape[1:]
    bound = torch.zeros(len(maps)) if noise is None else noise
    bound = bound.to(maps.device, torch.float64)
    bases = None if r > d else _by_cholesky(maps, bound)
    if bases is not None:
        return HeadSpaces(bases, torch.full((len(maps),), r, device=maps.device))
    wide = maps.double()
    q, triangle = torch.linalg.qr(wide.mT)
    # The singular values of a map are those of its small triangular factor.
    sigma = torch.linalg.svdvals(triangle)
    floor = torch.maximum(max(r, d) * torch.finfo(wide.dtype).eps * sigma[:, :1], bound[:, None])
    ranks = (sigma > floor).sum(-1)
    for h in torch.nonzero(ranks < min(r, d)).flatten().tolist():
        rank = int(ranks[h])
        u = torch.linalg.svd(triangle[h], full_matrices=False).U[:, :rank]
        q[h, :, :rank] = q[h] @ u
        q[h, :, rank:] = 0
    return HeadSpaces(q.to(maps.dtype), ranks)


def _by_cholesky(
    maps: Float[Tensor, "H r d"], bound: Float[Tensor, " H"]
) -> Float[Tensor, "H d r"] | None:
    """Bases of maps of full rank, some heads at a time; None if a map is not clearly of that."""
    bases = maps.new_empty(maps.shape)
    some = max(1, _ENTRIES // max(1, maps[0].numel())) if len(maps) else 1
    for out, values, noise in zip(
        bases.split(some), maps.split(some), bound.split(some), strict=True
    ):
        wide = values.double()
        factors, sharp = cholesky_whitening(wide, noise, condition=_CONDITION)
        if not bool(sharp.all()):
            return None
        out.copy_(factors @ wide)
    return bases.mT


def pairwise_overlaps(spaces: HeadSpaces) -> Float[Tensor, "H H"]:
    """T_ij = ‖Q_iᵀ Q_j‖_F² for all pairs of heads; the diagonal holds the ranks.

    As `squared_overlaps`, in float64.

    Examples
    --------
    >>> import torch
    >>> pairwise_overlaps(head_spaces(torch.eye(4, dtype=torch.float64).reshape(2, 2, 4)))
    tensor([[2., 0.],
            [0., 2.]], dtype=torch.float64)
    """
    return squared_overlaps(spaces.bases.mT)
