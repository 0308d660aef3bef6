"""How many eigenvalues of a symmetric matrix lie above a number, without the spectrum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry._validate import real_tensor


def count_above(s: Float[Tensor, "d d"], threshold: float) -> int:
    """Count the eigenvalues of S above a threshold by the inertia of S - threshold·I.

    Parameters
    ----------
    s
        Symmetric, of which the lower triangle is read.
    threshold
        Eigenvalues within the round-off of `s` of it, some ε‖S‖, may be counted either way.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If `s` holds NaN or infinity.

    Notes
    -----
    d³/3 multiply-adds, less where all lie on one side and a Cholesky factorisation shows it.
    LDLᵀ with pivots of size one and two (Bunch and Kaufman) has the inertia of S by Sylvester's
    law; a pivot of size two has one eigenvalue of each sign.

    References
    ----------
    J. R. Bunch and L. Kaufman, Math. Comp. 31 (1977) 163-179; B. N. Parlett, The Symmetric
    Eigenvalue Problem (1998), section 3.3.

    Examples
    --------
    >>> import torch
    >>> s = torch.tensor([[0.0, 2.0], [2.0, 0.0]])  # eigenvalues 2 and -2
    >>> [count_above(s, at) for at in (-3.0, 0.0, 1.0, 3.0)]
    [2, 1, 1, 0]
    """
    s = real_tensor(s, "s", ndim=2)
    d = s.shape[-1]
    shifted = s.clone()
    shifted.diagonal().sub_(threshold)
    if d == 0 or _is_definite(shifted):
        return d
    if _is_definite(-shifted):
        return 0
    factor, pivots = torch.linalg.ldl_factor(shifted)
    # The rows of a pivot of size two carry one negative number twice.
    single = pivots > 0
    pairs = int((~single).sum()) // 2
    return int((factor.diagonal()[single] > 0).sum()) + pairs


def _is_definite(s: Float[Tensor, "d d"]) -> bool:
    return int(torch.linalg.cholesky_ex(s).info) == 0
