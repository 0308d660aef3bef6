"""What chance gives for the Gram correlation of a pair after gauge fixing.

Gauge fixing makes diagonals of A and B agree, and that alone correlates them. So a balanced number
has a null of its own: the diagonals of A and B as the gauge has made them agree, and random signs
off them.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

# Share of ‖Ã‖² off the diagonal below which it is rounding of float32.
_LEAST_OUTSIDE = 1e-6


def balanced_correlation_z(
    correlation: float,
    write: Float[Tensor, " d"],
    read: Float[Tensor, " d"],
    *,
    norms: tuple[float, float],
) -> float | None:
    """Distance of a balanced ρ from its null, in standard deviations.

    Both diagonals are taken as the gauge has left them, and give the mean ⟨ã, b̃⟩/(‖Ã‖‖B̃‖). Off the
    diagonal signs are random, and A_ij² is on average as A_ii A_jj: gauge fixing leaves both maps
    with one scale profile. With f the share of ‖Ã‖² on the diagonal and w_ij = A_ii A_jj over its
    sum, i ≠ j, the variance is 2(1 - f_A)(1 - f_B) Σ w_ij^A w_ij^B; of flat diagonals
    2(1 - f_A)(1 - f_B)/(d(d-1)).

    Parameters
    ----------
    correlation
        ρ of the balanced pair.
    write, read
        A_ii and B_ii.
    norms
        ‖Ã‖ and ‖B̃‖.

    Returns
    -------
    float or None
        None where nothing lies off the diagonal, to the rounding of float32.

    References
    ----------
    Own derivation: the second moment of ⟨A, SBS⟩ over diagonal signs S is 2 Σ A_ij² B_ij², i ≠ j,
    plus the diagonals; A_ij² is replaced by its mean at fixed A_ii.

    Examples
    --------
    >>> import torch
    >>> flat = torch.ones(4, dtype=torch.float64)
    >>> z = balanced_correlation_z(0.5, flat, flat, norms=(1.0, 1.0))
    >>> round(z, 4)  # 0.5·√6: six free entries above the diagonal
    1.2247
    """
    d = len(write)
    if d < 2 or min(norms) <= 0:
        return None
    one, two = write - write.mean(), read - read.mean()
    outside = [
        1 - float(side.square().sum()) / norm**2
        for side, norm in zip((one, two), norms, strict=True)
    ]
    if min(outside) < _LEAST_OUTSIDE:
        return None
    mean = float((one * two).sum()) / (norms[0] * norms[1])
    meeting = _pairs(write * read) / (_pairs(write) * _pairs(read))
    z = (correlation - mean) / (2 * outside[0] * outside[1] * meeting) ** 0.5
    return z if math.isfinite(z) else None


def _pairs(values: Float[Tensor, " d"]) -> float:
    """Σ x_i x_j over i ≠ j."""
    return float(values.sum().square() - values.square().sum())
