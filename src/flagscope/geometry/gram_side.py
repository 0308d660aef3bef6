"""One map on a shared space by its Gram matrix and products alone: no eigenproblem of full size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.geometry.commutator_sketch import CommutatorSketch, sketched_commutator
from flagscope.geometry.gram import gram
from flagscope.geometry.leading_space import LeadingSpace, leading_space
from flagscope.geometry.ranks import participation_of_moments

# Rows of a matrix that are multiplied entry by entry at a time, so that they stay in the cache.
_ROWS = 64
# Up to this size of the shared space the commutator takes one product of the Gram matrices.
PRODUCT_UP_TO = 2048


@dataclass(frozen=True)
class GramSide:
    """A map W, d x m with the shared space along its rows, and A = W Wᵀ.

    Attributes
    ----------
    d
        Dimension of the shared space.
    centred
        The smaller of W Wᵀ and WᵀW less tr A/d on its diagonal, shape (n, n) with n = min(d, m).
    mean
        tr A/d.
    square, cube, fourth
        tr Ã², tr Ã³ and tr Ã⁴ of Ã = A - (tr A/d) I.
    matrix
        Gives W; asked only where d > m, but for `leading`.
    """

    d: int
    centred: Float[Tensor, "n n"]
    mean: float
    square: float
    cube: float
    fourth: float
    matrix: Callable[[], Float[Tensor, "d m"]]

    @property
    def full(self) -> bool:
        """Whether the Gram matrix at hand is that of the shared space."""
        return len(self.centred) == self.d

    @property
    def uncentred(self) -> Float[Tensor, "n n"]:
        """A new copy of the smaller Gram matrix, its trace left in."""
        raw = self.centred.clone()
        raw.diagonal().add_(self.mean)
        return raw

    @property
    def gram_norm(self) -> float:
        """‖A‖_F."""
        return (self.square + self.d * self.mean**2) ** 0.5

    @property
    def participation(self) -> float:
        """Participation ratio of the squared singular values, (tr A)²/tr A²; 0 for a zero map."""
        trace, square = torch.tensor([self.d * self.mean, self.gram_norm**2], dtype=torch.float64)
        return float(participation_of_moments(trace, square))

    def apply(self, x: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
        """Ã X."""
        if self.full:
            return self.centred @ x
        w = self.matrix()
        return w @ (w.mT @ x) - self.mean * x

    def in_shared(self) -> Float[Tensor, "d d"]:
        """Ã."""
        if self.full:
            return self.centred
        large = gram(self.matrix())
        large.diagonal().sub_(self.mean)
        return large

    def leading(
        self, rank: int, *, generator: torch.Generator, tolerance: float | None = None
    ) -> LeadingSpace:
        """The leading `rank` left singular vectors of W; `values` are squares of singular values.

        Of the smaller Gram matrix, by a block Krylov space where that certifies them, otherwise
        from all its eigenvectors. With a `tolerance` a residual of that size is enough, as in
        `leading_space`.
        """
        if rank == 0:
            none = self.centred.new_zeros(self.d, 0)
            return LeadingSpace(none.new_zeros(0, dtype=torch.float64), none, 0.0, 0.0, 0.0, True)
        raw = self.uncentred
        n = len(raw)
        space = leading_space(
            lambda x: raw @ x, n, min(rank, n), generator=generator, dtype=raw.dtype,
            device=raw.device, tolerance=tolerance,
        )  # fmt: skip
        if not space.certified and tolerance is None:
            space = _dense(raw, min(rank, n))
        if self.full:
            return space
        outer = self.matrix() @ space.vectors
        outer /= torch.linalg.vector_norm(outer, dim=0).clamp_min(torch.finfo(outer.dtype).tiny)
        return replace(space, vectors=outer)


@dataclass(frozen=True)
class SmallGram:
    """The smaller Gram matrix of a map, n x n.

    Attributes
    ----------
    centred
        The matrix less its mean eigenvalue on the diagonal.
    mean
        Its mean eigenvalue.
    """

    centred: Float[Tensor, "n n"]
    mean: float

    @cached_property
    def moments(self) -> tuple[float, float, float]:
        """Sums of the squares, cubes and fourth powers of the eigenvalues of `centred`."""
        square = gram(self.centred)
        return (
            inner(self.centred, self.centred), inner(square, self.centred), inner(square, square)
        )  # fmt: skip

    @property
    def uncentred(self) -> Float[Tensor, "n n"]:
        """A new copy with its trace."""
        raw = self.centred.clone()
        raw.diagonal().add_(self.mean)
        return raw

    def scaled(self, factors: Float[Tensor, " n"]) -> SmallGram:
        """Of the map with its rows times factors."""
        return _scaled(self.uncentred, factors)

    def side(self, d: int, matrix: Callable[[], Float[Tensor, "d m"]]) -> GramSide:
        """As the side of a map on a space of d dimensions, n or more."""
        n = len(self.centred)
        mean = self.mean * n / d
        shift, centred = self.mean - mean, self.centred
        if n < d:
            centred = centred.clone()
            centred.diagonal().add_(shift)
        # Moments about another mean, and those of the zeros that the smaller Gram matrix lacks.
        two, three, four = self.moments
        zeros = d - n
        square = two + n * shift**2 + zeros * mean**2
        cube = three + 3 * shift * two + n * shift**3 - zeros * mean**3
        fourth = four + 4 * shift * three + 6 * shift**2 * two + n * shift**4 + zeros * mean**4
        return GramSide(d, centred, mean, square, cube, fourth, matrix)


def small_gram(w: Float[Tensor, "p m"]) -> SmallGram:
    """Form the smaller Gram matrix of a map.

    Work: 9/16 of the product p m n for it, n = min(p, m), and 9/16 n³ for the moments.

    Parameters
    ----------
    w
        The map; eighth powers of its singular values must be in range.

    Examples
    --------
    >>> small = small_gram(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    >>> small.mean, small.moments
    (2.0, (8.0, 0.0, 32.0))
    """
    return _centred(gram(w if w.shape[0] <= w.shape[1] else w.mT))


def _scaled(raw: Float[Tensor, "n n"], factors: Float[Tensor, " n"]) -> SmallGram:
    raw *= factors[:, None]
    raw *= factors
    return _centred(raw)


def _centred(raw: Float[Tensor, "n n"]) -> SmallGram:
    mean = float(raw.diagonal().double().sum()) / max(1, len(raw))
    raw.diagonal().sub_(mean)
    return SmallGram(raw, mean)


def gram_side(
    w: Float[Tensor, "d m"], matrix: Callable[[], Float[Tensor, "d m"]] | None = None
) -> GramSide:
    """Form the smaller Gram matrix of a map on a shared space, and the moments of its spectrum.

    Parameters
    ----------
    w
        The shared space along the rows; as for `small_gram`.
    matrix
        Gives `w` again, so that it need not stay in memory; by default it does.

    Examples
    --------
    >>> side = gram_side(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    >>> side.mean, side.square, side.cube, side.fourth, side.participation
    (2.0, 8.0, 0.0, 32.0, 1.0)
    """
    return small_gram(w).side(w.shape[0], matrix or (lambda: w))


def restricted_side(
    side: GramSide,
    alive: Bool[Tensor, " d"],
    factors: Float[Tensor, " a"] | None = None,
) -> GramSide:
    """The side of some rows of W, times factors, by scaling the Gram matrix at hand; for d ≤ m.

    Parameters
    ----------
    side
        With `full`.
    alive
        The rows that stay.
    factors
        One for each of them.

    Examples
    --------
    >>> side = gram_side(torch.eye(3))
    >>> alive = torch.tensor([True, True, False])
    >>> restricted_side(side, alive, torch.tensor([2.0, 1.0])).mean
    2.5
    """
    raw = side.uncentred
    if not bool(alive.all()):
        raw = raw[alive][:, alive]
    scale = (torch.ones(len(raw)) if factors is None else factors).to(raw)
    return _scaled(raw, scale).side(len(raw), lambda: side.matrix()[alive] * scale[:, None])


def inner(x: Float[Tensor, "n k"], y: Float[Tensor, "n k"]) -> float:
    """Σ x∘y; the sums of rows are added in float64.

    Examples
    --------
    >>> inner(torch.ones(2, 2), torch.eye(2))
    2.0
    """
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    # One buffer: to get memory anew costs more than the products do.
    buffer = x.new_empty(min(_ROWS, len(x)), x.shape[1])
    for one, two in zip(x.split(_ROWS), y.split(_ROWS), strict=True):
        total += torch.mul(one, two, out=buffer[: len(one)]).sum(-1).double().sum()
    return float(total)


def inner_of_grams(write: GramSide, read: GramSide) -> float:
    """⟨Ã, B̃⟩ of two maps on one space: a sum over entries, or the norm of their product.

    Examples
    --------
    >>> side = gram_side(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    >>> inner_of_grams(side, side) == side.square
    True
    """
    if write.full and read.full:
        return inner(write.centred, read.centred)
    if write.full or read.full:
        full, thin = (write, read) if write.full else (read, write)
        w = thin.matrix()
        # tr(Wᵀ Ã W), and Ã has no trace.
        return inner(full.centred @ w, w)
    product = read.matrix().mT @ write.matrix()
    return inner(product, product) - write.mean * read.mean * write.d


def difference_of_grams(
    write: GramSide, read: GramSide, product: float, weights: tuple[float, float] = (1.0, 1.0)
) -> float:
    """‖A - B‖_F, of A and B times weights.

    Parameters
    ----------
    write, read
        The two maps.
    product
        ⟨Ã, B̃⟩, see `inner_of_grams`.
    weights
        Factors of A and B.

    Examples
    --------
    >>> side = gram_side(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    >>> difference_of_grams(side, side, side.square)
    0.0
    """
    a, b = weights
    traces = write.d * (a * write.mean - b * read.mean) ** 2
    if write.full and read.full:
        gap = a * write.centred - b * read.centred
        return (inner(gap, gap) + traces) ** 0.5
    squares = a * a * write.square + b * b * read.square
    rest = squares - 2 * a * b * product
    floor = 16 * torch.finfo(write.centred.dtype).eps * squares
    return (max(0.0, rest if rest > floor else 0.0) + traces) ** 0.5


def commutator_of_grams(
    write: GramSide,
    read: GramSide,
    *,
    generator: torch.Generator,
    product_up_to: int = PRODUCT_UP_TO,
) -> CommutatorSketch:
    """‖[Ã, B̃]‖², ‖ÃB̃‖² and ν: exact by one product in small spaces, by a sketch in large ones.

    Parameters
    ----------
    write, read
        The two maps.
    generator
        Of the sketch.
    product_up_to
        Dimension up to which the product of the two Gram matrices is formed.

    Examples
    --------
    >>> side = gram_side(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    >>> commutator_of_grams(side, side, generator=torch.Generator()).commutator
    0.0
    """
    if write.d <= product_up_to:
        product = write.in_shared() @ read.in_shared()
        square = inner(product, product)
        product -= product.mT.clone()
        commutator = inner(product, product)
        defect = commutator / (2 * square) if square > 0 else float("nan")
        return CommutatorSketch(commutator, square, defect, 0.0, 0.0, 0)
    return sketched_commutator(
        write.apply, read.apply, write.d, generator=generator,
        dtype=write.centred.dtype, device=write.centred.device,
    )  # fmt: skip


def _dense(raw: Tensor, rank: int) -> LeadingSpace:
    values, vectors = torch.linalg.eigh(raw)
    values, vectors = values.flip(-1).double().clamp_min(0), vectors.flip(-1)
    following = float(values[rank]) if rank < len(values) else 0.0
    return LeadingSpace(values[:rank], vectors[:, :rank].clone(), following, 0.0, 0.0, True)
