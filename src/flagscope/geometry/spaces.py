"""Write and read spaces of a map: orthonormal bases of its column space and its row space."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import orthonormal, real_tensor


def orthonormal_basis(
    matrix: Float[Tensor, "*batch d m"], *, rank: int
) -> Float[Tensor, "*batch d rank"]:
    """Orthonormal basis of the column space, or of its dominant part.

    For `rank` = m the span of all columns, by a Householder QR decomposition, which is several
    times cheaper than an SVD; for a smaller rank the span of the leading left singular vectors.

    Parameters
    ----------
    matrix
        One vector a column; leading dimensions are batches.
    rank
        Dimension of the space, 0 ≤ rank ≤ min(d, m). Every matrix of the batch must have at
        least this numerical rank.

    Returns
    -------
    Tensor
        Columns orthonormal to a few ε.

    Raises
    ------
    InputError
        A rank that a matrix does not reach: its smallest singular value that would be used is
        at most max(d, m)·ε·σ_1, so the direction would be rounding error.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, Matrix Computations, 4th edition, 2013, sections 5.2, 5.4.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import orthonormal_basis
    >>> basis = orthonormal_basis(torch.tensor([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]]), rank=2)
    >>> (basis @ basis.mT).diagonal().round().tolist()
    [1.0, 1.0, 0.0]
    """
    matrix = real_tensor(matrix, "matrix", ndim=2)
    _check_rank(matrix, rank)
    if rank < matrix.shape[-1]:
        return _leading(matrix, rank)
    basis, triangle = torch.linalg.qr(matrix)
    if rank:
        _check_independent(torch.linalg.svdvals(triangle), matrix, rank)
    return basis


def singular_space(
    matrix: Float[Tensor, "*batch m n"], *, rank: int, side: Literal["left", "right"] = "left"
) -> Float[Tensor, "*batch d rank"]:
    """Leading left or right singular vectors, by a singular value decomposition.

    Parameters
    ----------
    matrix
        Leading dimensions are batches.
    rank
        Number of vectors, 0 ≤ rank ≤ min(m, n).
    side
        "left" for the column space (what the map writes, d = m), "right" for the row space (what
        it reads, d = n).

    Returns
    -------
    Tensor
        One vector a column, in descending order of singular values. Each vector is determined up
        to sign, and up to rotation where singular values nearly agree: see `singular_blocks`.

    Raises
    ------
    InputError
        An unknown side, or a rank that a matrix of the batch does not reach numerically.

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, Matrix Computations, 4th edition, 2013, section 2.4.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import singular_space
    >>> matrix = torch.diag(torch.tensor([1.0, 3.0, 2.0]))
    >>> singular_space(matrix, rank=2, side="right").abs()
    tensor([[0., 0.],
            [1., 0.],
            [0., 1.]])
    """
    matrix = real_tensor(matrix, "matrix", ndim=2)
    if side not in ("left", "right"):
        raise InputError(
            f"side is {side!r}", hint="'left' is the column space, 'right' the row space"
        )
    if side == "right":
        matrix = matrix.mT
    _check_rank(matrix, rank)
    return _leading(matrix, rank)


def orthogonal_complement(basis: Float[Tensor, "*batch d r"]) -> Float[Tensor, "*batch d d-r"]:
    """Orthonormal basis of the orthogonal complement of a subspace.

    Parameters
    ----------
    basis
        Orthonormal columns.

    Raises
    ------
    InputError
        Columns that are not orthonormal.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import orthogonal_complement
    >>> orthogonal_complement(torch.eye(3)[:, :2]).abs().flatten().tolist()
    [0.0, 0.0, 1.0]
    """
    basis = orthonormal(basis, "basis")
    d, r = basis.shape[-2:]
    if r == 0:
        identity = torch.eye(d, dtype=basis.dtype, device=basis.device)
        return identity.expand(*basis.shape[:-2], d, d).clone()
    return torch.linalg.qr(basis, mode="complete").Q[..., r:]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    if rank == 0:
        return matrix.new_zeros(*matrix.shape[:-1], 0)
    vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    _check_independent(values, matrix, rank)
    return vectors[..., :rank]


def _check_rank(matrix: Tensor, rank: int) -> None:
    largest = min(matrix.shape[-2:])
    if not 0 <= rank <= largest:
        raise InputError(
            f"rank {rank} is impossible for a matrix of shape {tuple(matrix.shape[-2:])}",
            hint=f"choose a rank between 0 and {largest}",
        )


def _check_independent(values: Tensor, matrix: Tensor, rank: int) -> None:
    """Refuse directions that are rounding error: σ_rank ≤ max(d, m)·ε·σ_1, the SVD's own error."""
    if values.numel() == 0:
        return
    floor = max(matrix.shape[-2:]) * torch.finfo(values.dtype).eps * values[..., 0]
    reached = (values > floor[..., None]).sum(-1).min().item()
    if reached < rank:
        raise InputError(
            f"a space of dimension {rank} was asked of a matrix of numerical rank {reached}",
            hint="take the rank from numerical_rank",
        )
