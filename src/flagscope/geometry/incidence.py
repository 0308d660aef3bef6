"""How two filtrations of one space meet: the incidence surface and the flag defect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import real_tensor, two_bases
from flagscope.geometry.intersection import forced_dimension


def incidence_surface(
    left_vectors: Float[Tensor, "*#batch d p"], right_vectors: Float[Tensor, "*#batch d q"]
) -> Float[Tensor, "*batch p q"]:
    """Overlaps of all leading subspaces, S(i, j) = ‖P_{V_i} P_{U_j}‖_F².

    V_i is the span of the first i left vectors, U_j of the first j right vectors. S(i, j) is the
    sum of the squared cosines of their principal angles, at least dim(V_i ∩ U_j), and i·j/d in
    the mean over random positions.

    Parameters
    ----------
    left_vectors, right_vectors
        Orthonormal columns, in the order of the two filtrations; leading dimensions broadcast.

    Returns
    -------
    Tensor
        S(i, j) at index [..., i-1, j-1].

    Raises
    ------
    InputError
        Columns that are not orthonormal, or spaces of different d.

    References
    ----------
    .. [1] Xiao, Sui, Ruan, Flag Varieties: A Geometric Framework for Deep Network Alignment,
       arXiv 2605.09861 (2026).

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import incidence_surface
    >>> incidence_surface(torch.eye(3), torch.eye(3).flip(1))
    tensor([[0., 0., 1.],
            [0., 1., 2.],
            [1., 2., 3.]])
    """
    left, right = two_bases(left_vectors, right_vectors, ("left_vectors", "right_vectors"))
    return (left.mT @ right).square().cumsum(-2).cumsum(-1)


def incidence_at_ranks(
    overlaps: Float[Tensor, "*batch p q"], rows: Sequence[int], columns: Sequence[int]
) -> Float[Tensor, "*batch rows columns"]:
    """Incidence surface at chosen ranks, from K = (left vectors)ᵀ(right vectors).

    S(i, j) = Σ_{a ≤ i, b ≤ j} K_ab² for i in `rows` and j in `columns`. For a caller that has K and
    not the vectors, and does not need the whole surface: one pass over K.

    Parameters
    ----------
    overlaps
        K; its singular values are cosines, so no row or column is longer than 1.
    rows, columns
        Ranks, counted from 1.

    Raises
    ------
    InputError
        A row or column longer than 1, which no overlap of orthonormal vectors has, or a rank beyond
        the overlaps.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import incidence_at_ranks
    >>> incidence_at_ranks(torch.tensor([[0.0, 1.0], [0.5, 0.0]]), [1, 2], [2])
    tensor([[1.0000],
            [1.2500]])
    """
    overlaps = real_tensor(overlaps, "overlaps", ndim=2)
    for ranks, extent in ((rows, overlaps.shape[-2]), (columns, overlaps.shape[-1])):
        if ranks and not 1 <= min(ranks) <= max(ranks) <= extent:
            raise InputError(
                f"ranks from {min(ranks)} to {max(ranks)} of {extent} vectors",
                hint="ranks count from 1 to the number of vectors",
            )
    square = overlaps.square()
    if overlaps.numel():
        longest = max(square.sum(-1).max().item(), square.sum(-2).max().item())
        # √ε, as for orthonormal bases: K may come from a Gram's eigenvectors, which err by κ²·ε.
        if longest > 1 + torch.finfo(overlaps.dtype).eps ** 0.5:
            raise InputError(
                f"overlaps has a row or column of squared length {longest:.6g} > 1",
                hint="K is the product of two matrices with orthonormal columns",
            )
    left, right = (
        (torch.arange(extent)[None] < torch.tensor(list(ranks))[:, None]).to(square)
        for ranks, extent in ((rows, square.shape[-2]), (columns, square.shape[-1]))
    )
    return left @ square @ right.mT


def flag_defect(overlap: float, *, rank_write: int, rank_read: int) -> float:
    """Flag defect min(r1, r2) - Σcos²: how much of the smaller space lies outside the larger.

    The squared Frobenius norm of (I - P) restricted to the smaller of the write space V and the
    read space U, P the projector on the larger. It is 0 if and only if one of them holds the other,
    when the two form a flag.

    Parameters
    ----------
    overlap
        Σcos² over all principal angles, S(r1, r2) of `incidence_surface`. Known to roundoff, so
        that a defect below min(r1, r2)·ε is not resolved.
    rank_write, rank_read
        Dimensions of V and U.

    Raises
    ------
    InputError
        An overlap that is negative or beyond min(r1, r2).

    References
    ----------
    .. [1] Xiao, Sui, Ruan, Flag Varieties: A Geometric Framework for Deep Network Alignment,
       arXiv 2605.09861 (2026).

    Examples
    --------
    >>> from flagscope.geometry import flag_defect
    >>> flag_defect(1.25, rank_write=2, rank_read=3)
    0.75
    """
    smaller = min(rank_write, rank_read)
    # √ε of float32, as above.
    if not 0 <= overlap <= smaller * (1 + torch.finfo(torch.float32).eps ** 0.5):
        raise InputError(
            f"the overlap of spaces of dimensions {rank_write} and {rank_read} is {overlap:.6g}",
            hint=f"it is the sum of squared principal cosines, from 0 to {smaller}",
        )
    return max(0.0, smaller - overlap)


def attainable_overlap(overlap: float, rank_write: int, rank_read: int, d: int) -> float:
    """Σcos² within max(0, r1 + r2 - d) and min(r1, r2), past which rounding may carry it.

    Examples
    --------
    >>> from flagscope.geometry import attainable_overlap
    >>> attainable_overlap(2.0000001, 2, 3, 8), attainable_overlap(0.9999999, 2, 3, 4)
    (2.0, 1.0)
    """
    least, most = forced_dimension(rank_write, rank_read, d), min(rank_write, rank_read)
    return float(min(max(overlap, least), most))
