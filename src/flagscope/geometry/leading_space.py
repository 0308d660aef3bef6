"""Leading eigenvectors of a large symmetric matrix, from its products with blocks of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError

# X -> S X for a symmetric d x d matrix S, X of shape (d, k).
Operator = Callable[[Tensor], Tensor]

_BLOCK = 32
# Vectors beyond those wanted that have to fit, and the share of d from which on all eigenvectors by
# a dense solver cost no more.
_SPARE, _MOST = 64, 0.5
# A residual this many ε√d of the largest eigenvalue is round-off.
_ROUNDOFF = 4
# Sine by which the space may be off.
_TURN = 1e-5


@dataclass(frozen=True)
class LeadingSpace:
    """The leading eigenvalues and eigenvectors of a symmetric positive semidefinite matrix.

    Attributes
    ----------
    values
        Descending, shape (r,), float64.
    vectors
        Orthonormal, shape (d, r).
    following
        The largest eigenvalue behind them, as far as it is known: a lower bound.
    residual
        ‖S X - X Λ‖_F.
    turn
        Bound on the sine of the angle between the computed space and the leading one: the residual
        over the gap behind `values`; 1 where that says nothing.
    certified
        Whether `turn` is below 1e-5, or every residual is round-off, so that a dense solver of the
        same precision could not do better.
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "d r"]
    following: float
    residual: float
    turn: float
    certified: bool


def leading_space(
    apply: Operator,
    d: int,
    rank: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    block: int = _BLOCK,
    tolerance: float | None = None,
) -> LeadingSpace:
    """Find the `rank` leading eigenvectors by a block Krylov space.

    A random block and its images under S, S², … are made orthonormal as they come, each against all
    before it, and the eigenvectors are those of S restricted to their span (Rayleigh and Ritz).

    Parameters
    ----------
    apply
        Product with S, d x d, symmetric and positive semidefinite.
    d
        Its dimension.
    rank
        Number of eigenvectors, from 0 to d.
    generator
        Of the random block.
    dtype, device
        Of the vectors that `apply` is given.
    block
        Width of the block; eigenvalues of a higher multiplicity than that may be missed.
    tolerance
        Residual of each vector, relative to the largest eigenvalue, that is enough; eigenvalues err
        by its square over a gap. By default as little as round-off leaves.

    Returns
    -------
    LeadingSpace
        Not certified where the space would have to grow beyond half of R^d.

    Raises
    ------
    InputError
        If `rank` is negative or larger than `d`.

    References
    ----------
    G. H. Golub and R. Underwood, The block Lanczos method for computing eigenvalues (1977); Y.
    Saad, Numerical Methods for Large Eigenvalue Problems (2011), section 6.4; C. Davis and W. M.
    Kahan, SIAM J. Numer. Anal. 7 (1970) 1-46, for the turn.

    Examples
    --------
    >>> s = torch.diag(torch.tensor([5.0, 3.0] + [1.0] * 198))
    >>> space = leading_space(lambda x: s @ x, 200, 2, generator=torch.Generator().manual_seed(0))
    >>> [round(value, 4) for value in space.values.tolist()], space.certified
    ([5.0, 3.0], True)
    """
    if not 0 <= rank <= d:
        raise InputError(f"rank = {rank} of a matrix of size {d}", hint="give 0 to the size")
    empty = torch.zeros(d, 0, dtype=dtype, device=device)
    if rank == 0:
        return LeadingSpace(torch.zeros(0, dtype=torch.float64), empty, 0.0, 0.0, 0.0, True)
    limit = min(d, max(int(_MOST * d), rank + _SPARE))
    width = min(d, max(1, block))
    krylov = _Krylov(apply, d, generator, dtype, torch.device(device))
    krylov.begin(width)
    while True:
        # What the newest block has beyond the span is the residual of every Ritz vector.
        if krylov.size > rank:
            found = krylov.ritz(rank)
            enough = tolerance is not None and krylov.worst <= tolerance
            if found.certified or enough or krylov.size >= limit:
                return found
        # The first few blocks settle nothing, and later ones little each.
        for _ in range(1 if krylov.size < rank + width else max(1, krylov.size // (4 * width))):
            if krylov.size >= limit or not krylov.grow():
                return krylov.ritz(min(rank, krylov.size), whole=True)


class _Krylov:
    def __init__(
        self, apply: Operator, d: int, generator: torch.Generator, dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.apply, self.d, self.dtype, self.device = apply, d, dtype, device
        self.generator = generator
        self.basis: list[Tensor] = []
        self.images: list[Tensor] = []
        self.worst = float("inf")

    @property
    def size(self) -> int:
        return sum(part.shape[1] for part in self.basis)

    def begin(self, width: int) -> None:
        drawn = torch.randn(self.d, width, generator=self.generator, dtype=torch.float64)
        self._take(torch.linalg.qr(drawn.to(self.device, self.dtype))[0])

    def grow(self) -> bool:
        """Take the part of the newest images that lies outside the span; False if there is none."""
        if self.size >= self.d:
            return False
        new = self.images[-1]
        scale = torch.linalg.vector_norm(new)
        basis = torch.cat(self.basis, dim=1)
        for _ in range(2):  # twice is enough
            new = new - basis @ (basis.mT @ new)
        left = torch.linalg.vector_norm(new)
        if not bool(left > 10 * self.d**0.5 * torch.finfo(self.dtype).eps * scale):
            return False
        new = torch.linalg.qr(new)[0]
        new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        self._take(new[:, : self.d - self.size])
        return True

    def _take(self, vectors: Tensor) -> None:
        self.basis.append(vectors)
        self.images.append(self.apply(vectors))

    def ritz(self, rank: int, *, whole: bool = False) -> LeadingSpace:
        """The leading Ritz vectors; `whole` where the span holds all that S does to its vectors."""
        basis, images = torch.cat(self.basis, dim=1), torch.cat(self.images, dim=1)
        inside = (basis.mT @ images).double()
        values, turned = torch.linalg.eigh((inside + inside.mT) / 2)
        values, turned = values.flip(-1), turned.flip(-1).to(self.dtype)
        vectors = basis @ turned[:, :rank]
        off = images @ turned[:, :rank] - vectors * values[:rank].to(self.dtype)
        lengths = torch.linalg.vector_norm(off.double(), dim=0)
        residual = float(torch.linalg.vector_norm(lengths))
        top = float(values[0])
        self.worst = float(lengths.amax()) / top if top > 0 else 0.0
        following = float(values[rank]) if rank < len(values) else 0.0
        gap = float(values[rank - 1]) - following
        turn = min(1.0, residual / gap) if gap > 0 else 1.0
        floor = _ROUNDOFF * self.d**0.5 * torch.finfo(self.dtype).eps * top
        settled = bool((lengths <= floor).all()) and (whole or len(values) > rank)
        return LeadingSpace(
            values[:rank].clamp_min(0), vectors, max(following, 0.0), residual, turn,
            turn <= _TURN or settled,
        )  # fmt: skip
