"""How two filtrations of one space meet: the incidence surface and the flag defect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import non_negative, real_tensor, two_bases


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


def flag_defect(
    cosines: Float[Tensor, "*batch k"], *, rank_write: int, rank_read: int
) -> Float[Tensor, "*batch"]:
    """Flag defect dim V - Σcos²: how far the write space V is from lying in the read space U.

    The squared Frobenius norm of (I - P_U) P_V. It is 0 if and only if V ⊆ U, when the two
    spaces form a flag, and at least dim V - dim U.

    Parameters
    ----------
    cosines
        All min(rank_write, rank_read) principal cosines.
    rank_write, rank_read
        Dimensions of V and U.

    Raises
    ------
    InputError
        A number of cosines other than min(rank_write, rank_read), or values outside [0, 1].

    References
    ----------
    .. [1] Xiao, Sui, Ruan, Flag Varieties: A Geometric Framework for Deep Network Alignment,
       arXiv 2605.09861 (2026).

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import flag_defect
    >>> flag_defect(torch.tensor([1.0, 0.5]), rank_write=2, rank_read=3).item()
    0.75
    """
    cosines = non_negative(cosines, "cosines")
    smaller = min(rank_write, rank_read)
    if cosines.shape[-1] != smaller:
        raise InputError(
            f"{cosines.shape[-1]} cosines for spaces of dimensions {rank_write} and {rank_read}",
            hint=f"pass all {smaller} principal cosines",
        )
    # √ε, as above.
    if bool((cosines > 1 + torch.finfo(cosines.dtype).eps ** 0.5).any()):
        raise InputError(
            f"a cosine is {cosines.max().item():.6g}", hint="pass cosines, not angles in radians"
        )
    # Summed as (1 - c)(1 + c), exact where 1 - c² would cancel.
    cosines = cosines.clamp(max=1)
    return (rank_write - smaller) + ((1 - cosines) * (1 + cosines)).sum(-1)
