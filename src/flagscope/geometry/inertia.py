"""How many eigenvalues of a symmetric matrix lie above a number, without the spectrum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry._validate import real_tensor

# Columns that are eliminated at a time, and rows of what is left that are updated at a time.
_COLUMNS, _ROWS = 256, 512


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
    if is_definite(s, above=threshold):
        return d
    if is_definite(-s, above=-threshold):
        return 0
    factor, pivots = torch.linalg.ldl_factor(_shifted(s, threshold))
    # The rows of a pivot of size two carry one negative number twice.
    single = pivots > 0
    pairs = int((~single).sum()) // 2
    return int((factor.diagonal()[single] > 0).sum()) + pairs


def is_definite(s: Float[Tensor, "d d"], *, above: float = 0.0) -> bool:
    """Whether all eigenvalues of S lie above a number: S less it has a Cholesky factor.

    By blocks of columns, each taken from all behind it: at the speed of products, and done with the
    first block that has no factor.

    Parameters
    ----------
    s
        Symmetric.
    above
        The number; eigenvalues within the round-off of `s` of it may pass or not.

    Returns
    -------
    bool

    References
    ----------
    G. H. Golub and C. F. Van Loan, Matrix Computations (2013), section 4.2.

    Examples
    --------
    >>> import torch
    >>> s = torch.diag(torch.tensor([2.0, 1.0]))
    >>> is_definite(s), is_definite(s, above=1.5)
    (True, False)
    """
    s = _shifted(real_tensor(s, "s", ndim=2), above)
    d = len(s)
    # On a device all at once: it would wait for the outcome of each block.
    columns = _COLUMNS if s.device.type == "cpu" else max(1, d)
    for start in range(0, d, columns):
        stop = min(d, start + columns)
        corner, info = torch.linalg.cholesky_ex(s[start:stop, start:stop])
        if int(info):
            return False
        across = torch.linalg.solve_triangular(corner, s[stop:, start:stop].mT, upper=False)
        for row in range(stop, d, _ROWS):
            last = min(d, row + _ROWS)
            rows, before = across[:, row - stop : last - stop], across[:, : last - stop]
            s[row:last, stop:last].addmm_(rows.mT, before, alpha=-1)
    return True


def _shifted(s: Float[Tensor, "d d"], by: float) -> Float[Tensor, "d d"]:
    shifted = s.clone()
    shifted.diagonal().sub_(by)
    return shifted
