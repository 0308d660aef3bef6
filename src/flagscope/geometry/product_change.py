"""Change of products W2 W1 of thin maps, from small factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Below this relative change the Gram matrices, which square it, have lost half of its digits.
_CANCELS = 1e-5


@dataclass(frozen=True)
class ProductNorms:
    """Frobenius norms of n products and of their change.

    Attributes
    ----------
    change
        ‖M_b - M_a‖, shape (n,), float64.
    norm_a, norm_b
        ‖M_a‖ and ‖M_b‖, shape (n,).
    """

    change: Float[Tensor, " n"]
    norm_a: Float[Tensor, " n"]
    norm_b: Float[Tensor, " n"]


def product_change(
    first: tuple[Float[Tensor, "n m2 d"], Float[Tensor, "n d m1"]],
    second: tuple[Float[Tensor, "n m2 d"], Float[Tensor, "n d m1"]],
    *,
    planes: Sequence[tuple[int, int]] = (),
) -> ProductNorms:
    """‖W2' W1' - W2 W1‖_F of n pairs without forming the m2 x m1 products.

    The change is L J R with L = [W2', W2], R = [W1'; W1], J = diag(I, -I): its norm follows from
    the 2d x 2d Gram matrices of L and R, and where these cancel from triangular factors of them.

    Parameters
    ----------
    first, second
        (W2, W1) and (W2', W1'), in float64.
    planes
        Index pairs of the shared space that a rotary embedding turns. The norms are then the root
        mean squares over all angles of the planes: ‖W2_0 W1_0‖² of what is not turned, plus half of
        ‖W2_p W1_p‖² + ‖W2_p J W1_p‖² of each plane p, J the quarter turn.

    Returns
    -------
    ProductNorms
        To about 1e-13 of the norms.

    Examples
    --------
    >>> w = torch.ones(1, 3, 2, dtype=torch.float64)
    >>> g = torch.tensor([[2.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    >>> moved = product_change((w, w.mT), (w @ torch.linalg.inv(g), g @ w.mT))
    >>> round(float(moved.norm_a), 3), float(moved.change) < 1e-14
    (6.0, True)
    """
    left = torch.cat([second[0], first[0]], dim=-1)
    right = torch.cat([second[1], first[1]], dim=-2)
    return _change(left, right, _parts(first[0].shape[-1], planes))


# Indices of the shared space, and the weight of the squared norm of its part of the product.
_Part = tuple[list[int], float]


def _parts(d: int, planes: Sequence[tuple[int, int]]) -> list[_Part]:
    """What is not turned, and each plane, whose quarter turn counts as well."""
    turned = {index for plane in planes for index in plane}
    still = [index for index in range(d) if index not in turned]
    return [(still, 1.0)] * bool(still) + [(list(plane), 0.5) for plane in planes]


def _change(
    left: Float[Tensor, "n m2 e"], right: Float[Tensor, "n e m1"], parts: list[_Part]
) -> ProductNorms:
    d = left.shape[-1] // 2
    sign = torch.ones(2 * d, dtype=left.dtype, device=left.device)
    sign[d:] = -1
    of_b, of_a = (sign > 0).to(left), (sign < 0).to(left)
    squares = _squares(left.mT @ left, right @ right.mT, (sign, of_a, of_b), parts, d)
    scale = torch.maximum(squares[1], squares[2])
    close = (squares[0] < (_CANCELS**2) * scale) & (scale > 0)
    if bool(close.any()):
        # Triangular factors of both sides: no square is taken before the difference is.
        lower = torch.linalg.qr(left[close], mode="r").R
        upper = torch.linalg.qr(right[close].mT, mode="r").R
        squares[0, close] = _direct(lower, upper, sign, parts, d)
    root = squares.clamp_min(0).sqrt()
    return ProductNorms(root[0], root[1], root[2])


def _squares(
    g: Tensor, h: Tensor, signs: tuple[Tensor, ...], parts: list[_Part], d: int
) -> Float[Tensor, "3 n"]:
    """Weighted squared norms of Σ over a part of L S R for several diagonal S."""
    total = g.new_zeros(len(signs), len(g))
    for index, weight in parts:
        both = index + [d + i for i in index]
        gram_left, gram_right = g[:, both][:, :, both], h[:, both][:, :, both]
        for k, sign in enumerate(signs):
            s = sign[both]
            scaled = s[:, None] * gram_right * s
            total[k] += weight * (gram_left * scaled).sum((-1, -2))
            if weight != 1.0:
                total[k] += weight * (gram_left * _turned(scaled)).sum((-1, -2))
    return total


def _turned(h: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """K H Kᵀ for the quarter turn K (x, y) = (-y, x) of the plane, of the one and other side."""
    swap = [1, 0, 3, 2]
    sign = h.new_tensor([-1.0, 1.0, -1.0, 1.0])
    return sign[:, None] * h[:, swap][:, :, swap] * sign


def _direct(
    lower: Tensor, upper: Tensor, sign: Tensor, parts: list[_Part], d: int
) -> Float[Tensor, " n"]:
    total = lower.new_zeros(len(lower))
    for index, weight in parts:
        both = index + [d + i for i in index]
        left, right = lower[:, :, both] * sign[both], upper[:, :, both]
        total += weight * (left @ right.mT).square().sum((-1, -2))
        if weight != 1.0:
            turned = right[:, :, [1, 0, 3, 2]] * right.new_tensor([-1.0, 1.0, -1.0, 1.0])
            total += weight * (left @ turned.mT).square().sum((-1, -2))
    return total
