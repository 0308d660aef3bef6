"""Gauge fixing by positive scales: one a neuron (ReLU), or one a rotary plane.

These are the changes of basis of the shared space that a positively homogeneous activation or a
rotary embedding leaves free. Balancing equates what they can move: the diagonals of A = W1 W1ᵀ and
B = W2ᵀ W2, or their traces over each plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import broadcast_batch, non_negative, same_dtype, two_grams


@dataclass(frozen=True, eq=False)
class PositiveScales:
    """One positive scale a neuron or a plane.

    Attributes
    ----------
    scales
        Shape (..., n). W1's rows are multiplied by them, W2's columns divided. 1 where dead.
    dead
        Shape (..., n): True where W1 or W2 vanishes there, so that no scale balances it and the
        path contributes nothing.
    """

    scales: Float[Tensor, "*batch n"]
    dead: Bool[Tensor, "*batch n"]


def neuron_scales(
    write_diagonal: Float[Tensor, "*#batch d"], read_diagonal: Float[Tensor, "*#batch d"]
) -> PositiveScales:
    """Scales that balance each neuron: diag A = diag B afterwards.

    The gauge of a positively homogeneous activation such as ReLU: neuron i may be scaled by
    s_i > 0 before and by 1/s_i after it, and s_i = (B_ii / A_ii)^{1/4} equates both norms.

    Parameters
    ----------
    write_diagonal
        A_ii, squared norms of the rows of W1 (with the bias, if there is one: (W1, b1)).
    read_diagonal
        B_ii, squared norms of the columns of W2.

    Raises
    ------
    InputError
        Values that are negative, not finite, or of different shapes.

    References
    ----------
    .. [1] S. S. Du, W. Hu, J. D. Lee, Algorithmic regularization in learning deep homogeneous
       models: layers are automatically balanced, NeurIPS 2018, arXiv 1806.00900.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import neuron_scales
    >>> result = neuron_scales(torch.tensor([1.0, 0.0]), torch.tensor([16.0, 3.0]))
    >>> result.scales, result.dead
    (tensor([2., 1.]), tensor([False,  True]))
    """
    a, b = same_dtype(
        non_negative(write_diagonal, "write_diagonal"), non_negative(read_diagonal, "read_diagonal")
    )
    if a.shape != b.shape:
        raise InputError(
            f"write_diagonal {tuple(a.shape)} and read_diagonal {tuple(b.shape)} differ in shape",
            hint="both hold one value a neuron",
        )
    return _scales(a, b)


def plane_scales(
    write_gram: Float[Tensor, "*#batch d d"],
    read_gram: Float[Tensor, "*#batch d d"],
    planes: Int[Tensor, "n 2"],
) -> PositiveScales:
    """Scales that balance each rotary plane: the traces of A and B over it agree afterwards.

    The gauge of a rotary query-key pair: what commutes with all rotations of a plane is aI + bJ, a
    scaling times a rotation. The rotation turns both maps alike and leaves their alignment, so
    the positive scale is all there is to fix.

    Parameters
    ----------
    write_gram, read_gram
        A and B on R^d; leading dimensions broadcast.
    planes
        The two coordinates of each plane, no coordinate twice. Coordinates that are not rotated
        are in none.

    Returns
    -------
    PositiveScales
        One scale a plane, for both of its coordinates.

    Raises
    ------
    InputError
        Grams of different sizes, planes that overlap or lie outside R^d.

    References
    ----------
    .. [1] J. Su et al., RoFormer: enhanced transformer with rotary position embedding, arXiv
       2104.09864 (2021), section 3.2.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import plane_scales
    >>> planes = torch.tensor([[0, 2], [1, 3]])
    >>> a, b = torch.eye(4), torch.diag(torch.tensor([16.0, 1.0, 16.0, 1.0]))
    >>> plane_scales(a, b, planes).scales
    tensor([2., 1.])
    """
    a, b = two_grams(write_gram, read_gram, ("write_gram", "read_gram"))
    planes = _checked_planes(planes, a.shape[-1]).to(a.device)
    shape = (*broadcast_batch(a, b, ("write_gram", "read_gram")), len(planes))
    traces = [gram.diagonal(dim1=-2, dim2=-1)[..., planes].sum(-1) for gram in (a, b)]
    return _scales(*(non_negative(trace, "trace").expand(shape) for trace in traces))


def _scales(a: Tensor, b: Tensor) -> PositiveScales:
    dead = (a == 0) | (b == 0)
    ones = torch.ones_like(a)
    # Roots before the quotient: b / a may overflow where its fourth root does not.
    root_a, root_b = (torch.where(dead, ones, value).sqrt().sqrt() for value in (a, b))
    return PositiveScales(root_b / root_a, dead)


def _checked_planes(planes: Tensor, d: int) -> Tensor:
    integers = isinstance(planes, Tensor) and not planes.is_floating_point()
    if not integers or planes.ndim != 2 or planes.shape[1] != 2:
        raise InputError(
            "planes must be an integer tensor of shape (n, 2)",
            hint="one row a plane, holding its two coordinates",
        )
    planes = planes.to(torch.int64)
    flat = planes.flatten()
    if flat.numel() and (flat.min() < 0 or flat.max() >= d or len(flat.unique()) < len(flat)):
        raise InputError(
            f"planes repeat a coordinate or leave 0..{d - 1}",
            hint="rotate-half planes are (j, j + d/2), interleaved ones (2j, 2j + 1)",
        )
    return planes
