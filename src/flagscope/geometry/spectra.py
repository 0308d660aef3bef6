"""The spectra and relative position of an adjacent pair, by the cheaper of two eigenproblems.

Everything that a pair diagnostic needs of (W1, W2), neuron-wise ones apart, is the eigenvalues of
the write Gram A = W1 W1ᵀ and of the read Gram B = W2ᵀ W2, and the cosines K between their
eigenvectors. They follow from A and B themselves (size d), or, where the shared space is the larger
side, from the small Grams G1 = W1ᵀ W1, G2 = W2 W2ᵀ and the product M = W2 W1 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry.gram import gram

T = TypeVar("T")

# Floating-point operations of an n×n symmetric eigenproblem with vectors, in units of n³: LAPACK's
# divide and conquer, 4/3 to tridiagonal form, up to 4 for its vectors, the rest to turn them back.
EIGH_FLOPS = 9
# Its time in multiply-adds of a matrix product, in units of n³ (measured on CPUs in float64: 8 at
# n = 768, up to 17 for n of 64 and 256).
_EIGH_TIME = 10


@dataclass(frozen=True)
class PairSpectra:
    """Spectra and relative position of n adjacent pairs that share R^d.

    Attributes
    ----------
    d
        Dimension of the shared space.
    alpha, beta
        Eigenvalues of A and B in descending order, shapes (n, p) and (n, q) with p = min(d, m1),
        q = min(d, m2); the other d - p and d - q eigenvalues are zero, and so are those within the
        round-off of the Gram matrix.
    cosines
        K, shape (n, p, q): inner products of the eigenvectors of A with those of B. Rows and
        columns of zero eigenvalues may be zero: their vectors are arbitrary.
    commutator
        ‖AB - BA‖_F², shape (n,), free of cancellation.
    product_fourth
        Σσ⁴ of the singular values of W2 W1, shape (n,).
    product
        N, shape (n, p, q), where it was computed without division; see `cross`.
    composite
        W2 W1, shape (n, m2, m1), where it was computed.
    """

    d: int
    alpha: Float[Tensor, "n p"]
    beta: Float[Tensor, "n q"]
    cosines: Float[Tensor, "n p q"]
    commutator: Float[Tensor, " n"]
    product_fourth: Float[Tensor, " n"]
    product: Float[Tensor, "n p q"] | None = None
    composite: Float[Tensor, "n m2 m1"] | None = None

    @property
    def cross(self) -> Float[Tensor, "n p q"]:
        """N_ij = √(α_i β_j) K_ij: its singular values are those of W2 W1."""
        if self.product is not None:
            return self.product
        return self.alpha.sqrt()[:, :, None] * self.cosines * self.beta.sqrt()[:, None, :]

    @cached_property
    def squares(self) -> Float[Tensor, "n p q"]:
        """K_ij²."""
        return self.cosines.square()

    @property
    def product_square(self) -> Float[Tensor, " n"]:
        """‖W2 W1‖_F² = Σ α_i β_j K_ij²."""
        if self.product is not None:
            return self.product.square().sum((-2, -1))
        return (self.alpha[:, None, :] @ self.squares @ self.beta[:, :, None])[:, 0, 0]

    @property
    def sigma_write(self) -> Float[Tensor, "n p"]:
        """Singular values of W1, descending."""
        return self.alpha.sqrt()

    @property
    def sigma_read(self) -> Float[Tensor, "n q"]:
        """Singular values of W2, descending."""
        return self.beta.sqrt()


@dataclass(frozen=True)
class Eigensystem:
    """W Wᵀ of n maps W on the space they share with others, found once for every pair they are in.

    Attributes
    ----------
    values
        Eigenvalues, descending, shape (n, p) with p = min(d, m); those within the round-off of the
        Gram matrix are zero.
    vectors
        Orthonormal eigenvectors, shape (n, d, p).
    """

    values: Float[Tensor, "n p"]
    vectors: Float[Tensor, "n d p"]


def eigensystem(w: Float[Tensor, "n d m"]) -> Eigensystem:
    """Eigenvalues and eigenvectors of W Wᵀ that can differ from zero.

    From the d×d Gram matrix, or for m < d from that of the triangular factor, so that the vectors
    are orthonormal to round-off either way.

    Parameters
    ----------
    w
        Maps with the shared space along the rows (a reader is given transposed), finite.

    Examples
    --------
    >>> import torch
    >>> e = eigensystem(torch.tensor([[[0.0], [2.0]]], dtype=torch.float64))
    >>> e.values.tolist(), e.vectors.abs().tolist()
    ([[4.0]], [[[0.0], [1.0]]])
    """
    d, m = w.shape[1:]
    if m >= d:
        return Eigensystem(*_descending(gram(w), m))
    basis, triangle = torch.linalg.qr(w)
    values, vectors = _descending(gram(triangle), d)
    return Eigensystem(values, basis @ vectors)


def spectra_from_eigensystems(write: Eigensystem, read: Eigensystem) -> PairSpectra:
    """Spectra and relative position of pairs of which each side's eigensystem is known.

    Products of matrices alone; no eigenproblem.

    Parameters
    ----------
    write, read
        Of W1 and of W2ᵀ, n maps each, on the same space.

    Examples
    --------
    >>> import torch
    >>> side = eigensystem(torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None])
    >>> spectra_from_eigensystems(side, side).cosines.abs().round().tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    x, y = write.vectors, read.vectors
    alpha, beta = write.values.to(x.dtype), read.values.to(y.dtype)
    k = x.mT @ y
    within = gram(k * beta.sqrt()[:, None, :])
    outside = 0
    if x.shape[2] < x.shape[1]:
        outside = _outer_commutator(x, alpha, within, y @ (k * beta[:, None, :]).mT)
    squares = within.square()
    fourth = (alpha[:, None, :] @ squares @ alpha[:, :, None])[:, 0, 0]
    gaps = alpha[:, :, None] - alpha[:, None, :]
    commutator = squares.mul_(gaps.square_()).sum((-2, -1)) + outside
    return PairSpectra(x.shape[1], alpha, beta, k, commutator, fourth)


class Remembered:
    """One-entry cache of work on the read maps, for consecutive pairs that share them.

    The key is the identity of the tensor; the entry of the last pair is kept.
    """

    def __init__(self) -> None:
        self._maps: Tensor | None = None
        self._known: dict[Callable[..., object], object] = {}

    def of(self, maps: Float[Tensor, "n m d"], work: Callable[[Tensor], T]) -> T:
        """Result of `work` on the maps, the shared space along the rows; computed once."""
        if self._maps is not maps:
            self._maps, self._known = maps, {}
        if work not in self._known:
            self._known[work] = work(maps.mT)
        return self._known[work]  # pyright: ignore[reportReturnType] (of this work)


def small_gram_eigensystem(
    w: Float[Tensor, "n d m"],
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m m"]]:
    """Eigenvalues, descending, and eigenvectors of WᵀW; those within its round-off are zero."""
    return _descending(gram(w.mT), max(w.shape[1:]))


def pair_spectra(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    *,
    composite: Float[Tensor, "n m2 m1"] | None = None,
    remembered: Remembered | None = None,
) -> PairSpectra:
    """Spectra and relative position of a batch of adjacent pairs.

    Parameters
    ----------
    w1
        Write maps, shape (n, d, m1), floating point, finite.
    w2
        Read maps, shape (n, m2, d), same n, d, dtype and device.
    composite
        W2 W1, where it is known.
    remembered
        The same for pairs that share read maps.

    Returns
    -------
    PairSpectra
        In the dtype of the input. Gram matrices square the condition number: in float64 cosines of
        singular directions are good to about u·κ² (5e-14 at κ = 1e2, 2e-10 at 1e4). Eighth powers
        of the singular values must be in range.

    Raises
    ------
    InputError
        If the shapes do not match.

    Examples
    --------
    >>> import torch
    >>> w1 = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> s = pair_spectra(w1[None], w1[None])
    >>> s.alpha
    tensor([[9., 4., 1.]], dtype=torch.float64)
    >>> float(s.commutator)
    0.0
    """
    if w1.ndim != 3 or w2.ndim != 3 or w1.shape[0] != w2.shape[0] or w1.shape[1] != w2.shape[2]:
        raise InputError(
            f"write maps {tuple(w1.shape)} and read maps {tuple(w2.shape)} do not share a space",
            hint="give (n, d, m1) and (n, m2, d)",
        )
    in_shared, in_outer = spectra_cost(w1.shape[1], w1.shape[2], w2.shape[1])
    if in_shared <= in_outer:
        return _from_large_grams(w1, w2, remembered)
    return _from_small_grams(w1, w2, composite, remembered)


def spectra_cost(d: int, m1: int, m2: int, *, eigh: float = _EIGH_TIME) -> tuple[float, float]:
    """Multiply-adds of `pair_spectra` for one pair, by the large Grams and by the small ones.

    `eigh` is what an n×n eigenproblem counts for, in units of n³; by default what it takes in time.
    """
    in_shared = d * d * (m1 + m2) + (3 + 2 * eigh) * d**3
    in_outer = d * (m1 * m1 + m2 * m2 + m1 * m2) + m1 * m2 * (2 * m1 + m2) + eigh * (m1**3 + m2**3)
    return in_shared, in_outer


def _descending(squares: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a Gram matrix, largest first; those within its round-off,
    `size` units of the largest, as exact zeros."""
    values, vectors = torch.linalg.eigh(squares)
    floor = size * torch.finfo(values.dtype).eps * values[:, -1:]
    return torch.where(values > floor, values, 0).flip(-1), vectors.flip(-1)


def _from_large_grams(w1: Tensor, w2: Tensor, remembered: Remembered | None = None) -> PairSpectra:
    return spectra_from_eigensystems(
        eigensystem(w1), (remembered or Remembered()).of(w2, eigensystem)
    )


def _from_small_grams(
    w1: Tensor,
    w2: Tensor,
    composite: Tensor | None = None,
    remembered: Remembered | None = None,
) -> PairSpectra:
    read = (remembered or Remembered()).of(w2, small_gram_eigensystem)
    return spectra_from_product(w1, w2, small_gram_eigensystem(w1), read, composite=composite)


def spectra_from_product(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    write: tuple[Float[Tensor, "n m1"], Float[Tensor, "n m1 m1"]],
    read: tuple[Float[Tensor, "n m2"], Float[Tensor, "n m2 m2"]],
    *,
    composite: Float[Tensor, "n m2 m1"] | None = None,
) -> PairSpectra:
    """Spectra and relative position from W2 W1 and the eigensystems of the small Grams.

    Parameters
    ----------
    w1, w2
        As for `pair_spectra`.
    write, read
        Eigenvalues and eigenvectors of W1ᵀW1 and of W2 W2ᵀ, see `small_gram_eigensystem`.
    composite
        W2 W1, where it is known.
    """
    d, m1, m2 = w1.shape[1], w1.shape[2], w2.shape[1]
    p, q = min(d, m1), min(d, m2)
    if composite is None:
        composite = w2 @ w1
    (alpha, e1), (beta, e2) = write, read
    alpha, e1 = alpha[:, :p], e1[:, :, :p]
    beta, e2 = beta[:, :q], e2[:, :, :q]
    cross = e1.mT @ composite.mT @ e2
    inverse_a, inverse_b = _inverse_root(alpha), _inverse_root(beta)
    k = _contracted(inverse_a[:, :, None] * cross * inverse_b[:, None, :])
    commutator, fourth, unsafe = _commutator(alpha, beta, cross)
    if bool(unsafe.any()):
        x = w1[unsafe] @ (e1 * inverse_a[:, None, :])[unsafe]
        y = w2[unsafe] @ x
        within, weights = y.mT @ y, alpha[unsafe]
        explicit = ((weights[:, :, None] - weights[:, None, :]) * within).square().sum((-2, -1))
        explicit += _outer_commutator(x, weights, within, w2[unsafe].mT @ y)
        commutator = commutator.masked_scatter(unsafe, explicit)
    return PairSpectra(d, alpha, beta, k, commutator, fourth, cross, composite)


def _inverse_root(eigenvalues: Tensor) -> Tensor:
    """1/√λ, and 0 for 0."""
    safe = eigenvalues > 0
    return torch.where(safe, eigenvalues, 1).rsqrt() * safe


def _contracted(k: Tensor) -> Tensor:
    """K with rows and columns of length at most 1, which round-off in directions of small singular
    values can exceed."""
    k = k / torch.linalg.vector_norm(k, dim=-1, keepdim=True).clamp_min(1)
    return k / torch.linalg.vector_norm(k, dim=-2, keepdim=True).clamp_min(1)


def _commutator(alpha: Tensor, beta: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """‖[A,B]‖² = 2 tr(A²B²) - 2 ‖M Mᵀ‖², the latter, and where the difference cancels too much."""
    squares = (alpha[:, :, None] * cross.square() * beta[:, None, :]).sum((-2, -1))
    fourth = gram(cross).square().sum((-2, -1))
    difference = 2 * squares - 2 * fourth
    # The terms err by some ten unit roundoffs. Where half of the digits are lost, seven at least
    # are left in float64; below, the explicit form is taken, which loses none.
    return difference, fourth, difference < torch.finfo(alpha.dtype).eps ** 0.5 * squares


def _outer_commutator(x: Tensor, alpha: Tensor, within: Tensor, b_x: Tensor) -> Tensor:
    """What Σ (α_i - α_j)² (EᵀBE)_ij² has beyond the eigenvectors X of A with nonzero α: from BX and
    XᵀBX, the part of BX outside their span."""
    outside = b_x - x @ within
    return 2 * (alpha.square() * outside.square().sum(-2)).sum(-1)
