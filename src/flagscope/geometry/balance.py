"""Gauge fixing: the change of basis of the shared space that balances a pair.

Where a network computes the same function for (g W1, W2 g⁻¹) as for (W1, W2), the raw alignment of
the two maps is partly an accident of g. Balancing removes it: among all such pairs those with the
least ‖W1‖² + ‖W2‖² have equal Grams, A = B (Kempf and Ness).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import broadcast_batch, real_tensor, same_dtype, two_grams
from flagscope.geometry.gram import above_rounding
from flagscope.geometry.spectra import PairSpectra

Status = Literal["ok", "rank deficient"]

# Where the squared difference of two Grams is this much smaller than their squares, it is summed
# entry by entry; above, the difference of sums loses two digits at most.
_CLOSE = 1e-2


@dataclass(frozen=True, eq=False)
class Balancing:
    """A symmetric change of basis that makes the write and read Grams equal.

    Attributes
    ----------
    transform
        g, shape (..., d, d), symmetric positive definite. The balanced maps are g W1 and W2 g⁻¹.
        The identity where the pair cannot be balanced.
    inverse
        g⁻¹, to ε times the condition of g.
    spectrum
        Shape (..., d), descending: the eigenvalues of the common Gram g A gᵀ = g⁻ᵀ B g⁻¹, which
        are the singular values of the product W2 W1. They do not depend on the gauge.
    condition
        Shape (...): condition number of g. Errors of the balanced maps grow with it.
    balanced
        Shape (...): False where A, B or the product lacks full rank, so that no invertible g
        exists.
    """

    transform: Float[Tensor, "*batch d d"]
    inverse: Float[Tensor, "*batch d d"]
    spectrum: Float[Tensor, "*batch d"]
    condition: Float[Tensor, "*batch"]
    balanced: Bool[Tensor, "*batch"]

    def statuses(self) -> list[Status]:
        """ "ok" or "rank deficient" for each member of the flattened batch."""
        return ["ok" if ok else "rank deficient" for ok in self.balanced.flatten().tolist()]


def balancing_transform(
    write_gram: Float[Tensor, "*batch d d"], read_gram: Float[Tensor, "*batch d d"]
) -> Balancing:
    """Balance a pair given by its Grams A = W1 W1ᵀ and B = W2ᵀ W2 under all of GL(d).

    g = S^{1/2} with S = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}, the one symmetric positive
    definite solution of S A S = B, so that g A gᵀ = g⁻ᵀ B g⁻¹.

    Parameters
    ----------
    write_gram, read_gram
        Symmetric positive semidefinite; leading dimensions broadcast.

    Returns
    -------
    Balancing
        Members whose Grams lack full numerical rank are left as they are and marked.

    Raises
    ------
    InputError
        Matrices that are not square, symmetric, positive semidefinite and of one size.

    Notes
    -----
    S is not formed by that formula, which loses cond(A) twice, but from factors A = L Lᵀ, B = R Rᵀ
    and the singular value decomposition Rᵀ L = P Σ Qᵀ: h = Σ^{-1/2} Pᵀ Rᵀ balances the pair too
    (to A = B = Σ), its inverse is L Q Σ^{-1/2}, and g is the symmetric factor in the polar
    decomposition of h. This is the square-root method of control theory, where A and B are the
    controllability and observability Gramians [2]_. The relative residual ‖g A gᵀ - g⁻ᵀ B g⁻¹‖ is
    1e-14 for well conditioned Grams in float64 and grows with the root of their condition (1e-12
    at 1e8); that of `balancing_transform_of_maps` stays at 1e-14. The product W2 W1 is kept to a
    few ε by both.

    References
    ----------
    .. [1] G. Kempf, L. Ness, The length of vectors in representation spaces, in: Algebraic
       Geometry, Lecture Notes in Mathematics 732, Springer 1979, 233-243.
    .. [2] A. J. Laub, M. T. Heath, C. C. Paige, R. C. Ward, Computation of system balancing
       transformations and other applications of simultaneous diagonalization algorithms, IEEE
       Trans. Automat. Control 32 (1987) 115-122.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import balancing_transform
    >>> result = balancing_transform(torch.diag(torch.tensor([16.0, 1.0])), torch.eye(2))
    >>> result.transform.diagonal()
    tensor([0.5000, 1.0000])
    >>> result.spectrum
    tensor([4., 1.])
    """
    a, b = two_grams(write_gram, read_gram, ("write_gram", "read_gram"))
    left, a_full = _factor(a, "write_gram")
    right, b_full = _factor(b, "read_gram")
    return _balance(left, right, full=a_full & b_full)


def balancing_transform_of_maps(
    write: Float[Tensor, "*batch d m"], read: Float[Tensor, "*batch n d"]
) -> Balancing:
    """Balance a pair given by the maps W1 and W2 themselves.

    As `balancing_transform`, without forming Grams: the balanced Grams agree to 1e-14 in float64
    whatever the conditions, and a map counts as singular only beyond 1/(max(d, m)·ε).

    Parameters
    ----------
    write
        W1: what it writes lies in R^d.
    read
        W2: what it reads lies in R^d. Leading dimensions broadcast.

    Raises
    ------
    InputError
        Maps that do not share R^d or are not finite.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import balancing_transform_of_maps
    >>> write, read = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.eye(2)
    >>> balancing_transform_of_maps(write, read).transform.diagonal()
    tensor([0.5000, 1.0000])
    """
    w1, w2 = same_dtype(real_tensor(write, "write", ndim=2), real_tensor(read, "read", ndim=2))
    if w1.shape[-2] != w2.shape[-1]:
        raise InputError(
            f"write {tuple(w1.shape)} and read {tuple(w2.shape)} do not share a space",
            hint="write has d rows, read has d columns",
        )
    broadcast_batch(w1, w2, ("write", "read"))
    left, w1_full = _reduced(w1)
    right, w2_full = _reduced(w2.mT)
    return _balance(left, right, full=w1_full & w2_full)


def _factor(gram: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """L with L Lᵀ = gram, and whether gram has full numerical rank."""
    values, vectors = torch.linalg.eigh(gram)
    if values.shape[-1] == 0:
        return vectors, values.new_ones(values.shape[:-1], dtype=torch.bool)
    # eigh errs by a small multiple of ε times the norm; d is the customary bound of it.
    size = values.abs().amax(-1, keepdim=True)
    floor = gram.shape[-1] * torch.finfo(gram.dtype).eps * size
    if bool((values < -10 * floor).any()):
        raise InputError(
            f"{name} has a negative eigenvalue, {values.min().item():.3g}",
            hint="a Gram matrix has none; pass W W.mT or W.mT W",
        )
    return vectors * values.clamp(min=0).sqrt()[..., None, :], (values > floor).all(-1)


def _reduced(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """L (d, d) with L Lᵀ = W Wᵀ without forming it, and whether W has full numerical rank d."""
    d, m = matrix.shape[-2:]
    if d == 0:
        return matrix.new_zeros(*matrix.shape[:-1], 0), matrix.new_ones(
            matrix.shape[:-2], dtype=torch.bool
        )
    if m < d:
        padding = matrix.new_zeros(*matrix.shape[:-1], d - m)
        return torch.cat([matrix, padding], -1), matrix.new_zeros(
            matrix.shape[:-2], dtype=torch.bool
        )
    factor = torch.linalg.qr(matrix.mT, mode="r").R.mT
    values = torch.linalg.svdvals(factor)
    # max(d, m)·ε·σ_1: the error of the decomposition, as in numerical_rank.
    floor = max(d, m) * torch.finfo(matrix.dtype).eps * values[..., :1]
    return factor, (values > floor).all(-1)


def _balance(left: Tensor, right: Tensor, *, full: Tensor) -> Balancing:
    """Square-root balancing of A = left leftᵀ and B = right rightᵀ."""
    # Both factors are scaled to norm 1 and the scales put back at the end: products of tiny and
    # huge maps then stay in range.
    left_size, right_size = _size(left), _size(right)
    left, right = left / left_size, right / right_size
    p, sigma, _ = torch.linalg.svd(right.mT @ left)
    d = sigma.shape[-1]
    # The product can lose rank only by rounding where both factors have it; its singular values
    # err by d·ε of the largest.
    if d:
        full = full & (sigma[..., -1] > d * torch.finfo(sigma.dtype).eps * sigma[..., 0])
    chosen = full[..., None]
    root = torch.where(chosen, sigma, 1).sqrt()
    h = (p / root[..., None, :]).mT @ right.mT
    identity = torch.eye(d, dtype=h.dtype, device=h.device)
    _, stretch, turn = torch.linalg.svd(torch.where(chosen[..., None], h, identity))
    ratio = (right_size / left_size).sqrt()
    stretch = torch.where(chosen, stretch * ratio[..., 0], 1)
    return Balancing(
        transform=_symmetric(turn, stretch),
        inverse=_symmetric(turn, 1 / stretch),
        spectrum=sigma * (left_size * right_size)[..., 0],
        condition=stretch.amax(-1) / stretch.amin(-1) if d else stretch.new_ones(full.shape),
        balanced=full,
    )


def _symmetric(turn: Tensor, stretch: Tensor) -> Tensor:
    """turnᵀ diag(stretch) turn, symmetric to the last bit."""
    product = (turn.mT * stretch[..., None, :]) @ turn
    return (product + product.mT) / 2


def _size(factor: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(factor, keepdim=True)
    return torch.where(norm > 0, norm, 1)


def imbalance(
    s: PairSpectra, *, weights: tuple[Float[Tensor, " n"], Float[Tensor, " n"]] | None = None
) -> Float[Tensor, " n"]:
    """‖A - B‖ / (‖A‖ + ‖B‖): 0 if balanced, 1/√2 at orthogonal ranges of equal norm.

    Conserved, up to decay, by gradient flow of linear pairs; changed by any gauge transformation
    that is not orthogonal. Where A and B both have the size of the shared space it is good to a few
    unit roundoffs, otherwise to their root, and 0 below that.

    Parameters
    ----------
    s
        Of n pairs.
    weights
        Factors of A and of B, where those of `s` are not to scale.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import imbalance, pair_spectra
    >>> e = torch.eye(2, dtype=torch.float64)
    >>> round(float(imbalance(pair_spectra(e[None, :, :1], e[None, 1:, :]))), 4)
    0.7071
    """
    one = s.alpha.new_ones(len(s.alpha))
    of_a, of_b = (one, one) if weights is None else weights
    alpha, beta = s.alpha * of_a[:, None], s.beta * of_b[:, None]
    norm_a, norm_b = alpha.square().sum(-1), beta.square().sum(-1)
    inner = s.product_square * of_a * of_b
    # The difference of equal sums of squares ends at the roundoff of those sums.
    floor = 16 * torch.finfo(alpha.dtype).eps * (norm_a + norm_b)
    difference = above_rounding(norm_a + norm_b - 2 * inner, floor)
    close = bool((difference < _CLOSE * (norm_a + norm_b)).any())
    if close and alpha.shape[-1] == beta.shape[-1] == s.d:
        # Where every eigenvector is known there are no sums to subtract.
        square = s.squares
        gaps = (alpha[:, :, None] - beta[:, None, :]).square()
        known = (square.sum(-1) > 0).all(-1) & (square.sum(-2) > 0).all(-1)
        difference = torch.where(known, (gaps * square).sum((-2, -1)), difference)
    return difference.sqrt() / (norm_a.sqrt() + norm_b.sqrt())
