"""How far a product of factors in working precision may lie from the exact one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Roundings beyond the r of the sum: of either factor to working precision, of the scaling, and of
# the product with it.
_FURTHER = 4


def float_product_bound(
    left: Float[Tensor, "m r"],
    right: Float[Tensor, "r n"],
    *,
    scaling: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "m n"]:
    """Entry-wise bound of |fl(s·L R) - s·L R| for products in `dtype`, in any order of summation.

    A sum of r products errs by at most γ_r Σ|l||r|, γ_k = k u/(1 - k u), in any order, with or
    without fused multiply-add ([1]_, section 3.1); and Σ|l||r| ≤ ‖l‖‖r‖.

    Parameters
    ----------
    left, right
        The factors, float64.
    scaling
        s.
    dtype
        Of the product: float32 or float64.

    Returns
    -------
    Tensor
        float64; no entry is below one subnormal number of `dtype`.

    References
    ----------
    .. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, 2002.

    Examples
    --------
    >>> import torch
    >>> left, right = torch.ones(1, 4).double(), torch.ones(4, 1).double()
    >>> float_product_bound(left, right).item() / 2**-24
    32.0000...
    """
    kind = torch.finfo(dtype)
    count = left.shape[-1] + _FURTHER
    unit = kind.eps / 2
    gamma = abs(scaling) * count * unit / (1 - count * unit)
    bound = torch.outer(left.norm(dim=1), right.norm(dim=0)).mul_(gamma)
    return bound.add_(kind.tiny * kind.eps)
