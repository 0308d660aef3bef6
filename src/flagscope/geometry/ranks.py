"""Ranks of matrices that are known with finite accuracy."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry._validate import non_negative


def numerical_rank(
    singular_values: Float[Tensor, "*batch n"],
    *,
    shape: tuple[int, int],
    noise: float | Float[Tensor, "*batch"] = 0.0,
    gram: bool = False,
) -> Int[Tensor, "*batch"]:
    """Number of singular values that stand above noise and rounding.

    Counts σ > max(noise, max(m, n)·ε·σ_1), where ε is the machine epsilon of `singular_values`.

    Parameters
    ----------
    singular_values
        Non-negative, in any order.
    shape
        Rows and columns (m, n) of the matrix.
    noise
        Spectral norm of the error with which the matrix is stored, for example half a unit in
        the last place of its storage format; one number, or one a matrix.
    gram
        True if the values are square roots of eigenvalues of W Wᵀ or Wᵀ W computed in the dtype
        of `singular_values`. The rounding threshold is then √(max(m, n)·ε)·σ_1.

    Returns
    -------
    Tensor
        int64, of the leading shape. 0 for a zero matrix.

    Raises
    ------
    InputError
        Values that are negative or not finite, or more of them than the shape allows.

    Notes
    -----
    An SVD is backward stable: its values err by a slowly growing multiple of ε·σ_1, for which
    max(m, n) is the customary bound ([1]_, section 5.4.1). A Gram's eigenvalues err by the same
    multiple of ε·σ_1², hence the root. The factor max(m, n) is needed there too: the spurious
    eigenvalues of a Gram of rank 1000 and shape (1536, 6144) reach 29 ε·σ_1².

    References
    ----------
    .. [1] G. H. Golub, C. F. Van Loan, Matrix Computations, 4th edition, 2013.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import numerical_rank
    >>> values = torch.tensor([3.0, 1.0, 1e-9])
    >>> numerical_rank(values, shape=(3, 5)).item()
    2
    >>> numerical_rank(values, shape=(3, 5), noise=1.5).item()
    1
    """
    values = non_negative(singular_values, "singular_values")
    rows, columns = _checked_shape(shape, values.shape[-1])
    noise = _checked_noise(noise, values)
    if values.shape[-1] == 0:
        return torch.zeros(values.shape[:-1], dtype=torch.int64, device=values.device)
    relative = max(rows, columns) * torch.finfo(values.dtype).eps
    rounding = values.amax(-1) * (math.sqrt(relative) if gram else relative)
    return (values > torch.maximum(noise, rounding)[..., None]).sum(-1)


def participation_ratio(singular_values: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Effective number of directions, (Σσ²)² / Σσ⁴.

    Between 1 (rank one) and n (all values equal); 0 for a zero matrix. Exact to a few roundings.

    Parameters
    ----------
    singular_values
        Non-negative, in any order.

    Raises
    ------
    InputError
        Values that are negative or not finite.

    References
    ----------
    .. [1] R. J. Bell, P. Dean, Atomic vibrations in vitreous silica, Discuss. Faraday Soc. 50
       (1970) 55-61.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import participation_ratio
    >>> participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0])).item()
    3.0
    """
    values = non_negative(singular_values, "singular_values")
    if values.shape[-1] == 0:
        return values.new_zeros(values.shape[:-1])
    # Scaled by the largest value: a fourth power overflows float32 from σ = 4e9 on.
    largest = values.amax(-1, keepdim=True)
    power = (values / torch.where(largest > 0, largest, 1)) ** 2
    return participation_of_moments(power.sum(-1), (power**2).sum(-1))


def participation_of_moments(
    trace: Float[Tensor, "*batch"], square: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """`participation_ratio` of singular values of which Σσ² and Σσ⁴ are known: (Σσ²)² / Σσ⁴.

    0 where Σσ⁴ is. Without the values nothing is scaled: eighth powers of them must be in range.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import participation_of_moments
    >>> participation_of_moments(torch.tensor(12.0), torch.tensor(48.0)).item()
    3.0
    """
    return torch.where(square > 0, trace**2 / torch.where(square > 0, square, 1), 0)


def energy_rank(
    singular_values: Float[Tensor, "*batch n"], *, fraction: float
) -> Int[Tensor, "*batch"]:
    """Smallest r with σ_1² + … + σ_r² ≥ fraction · Σσ².

    Parameters
    ----------
    singular_values
        Non-negative, in any order.
    fraction
        In (0, 1]. At 1 every non-zero value counts.

    Returns
    -------
    Tensor
        int64, of the leading shape. 0 for a zero matrix.

    Raises
    ------
    InputError
        Values that are negative or not finite, a fraction out of range.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import energy_rank
    >>> energy_rank(torch.tensor([3.0, 1.0, 0.1]), fraction=0.9).item()
    2
    """
    values = non_negative(singular_values, "singular_values")
    checked_fraction(fraction)
    if values.shape[-1] == 0:
        return torch.zeros(values.shape[:-1], dtype=torch.int64, device=values.device)
    # Energies are summed in float64 whatever the input: ties at the fraction are then decided by
    # the values and not by the order of summation.
    power = (values.double() / values.double().amax(-1, keepdim=True).clamp_min(1e-300)) ** 2
    power = power.sort(-1, descending=True).values
    # Sums from the small end, each value's own included: what is left before it is counted.
    tails = power.flip(-1).cumsum(-1).flip(-1)
    total = tails[..., :1]
    slack = 0.0 if fraction == 1 else values.shape[-1] * torch.finfo(torch.float64).eps
    return (tails > (1 - fraction + slack) * total).sum(-1)


def _checked_shape(shape: tuple[int, int], count: int) -> tuple[int, int]:
    rows, columns = shape
    if rows < 0 or columns < 0 or count > max(rows, columns):
        raise InputError(
            f"{count} singular values do not fit a matrix of shape {tuple(shape)}",
            hint="shape is (rows, columns) of the one matrix the values belong to",
        )
    return rows, columns


def _checked_noise(noise: float | Tensor, values: Tensor) -> Tensor:
    noise = torch.as_tensor(noise, dtype=values.dtype, device=values.device)
    if not bool((noise >= 0).all()) or not bool(torch.isfinite(noise).all()):
        raise InputError(
            "noise must be finite and not negative",
            hint="it is the spectral norm of the storage error, 0 if unknown",
        )
    try:
        return noise.expand(values.shape[:-1])
    except RuntimeError:
        raise InputError(
            f"noise has shape {tuple(noise.shape)}; expected {tuple(values.shape[:-1])}",
            hint="give one number, or one for each matrix of the batch",
        ) from None


def checked_fraction(fraction: float | None) -> None:
    """Refuse a share of the energy outside (0, 1]."""
    if fraction is None or not 0 < fraction <= 1:
        raise InputError(
            f"the share of the energy must lie in (0, 1], not {fraction!r}",
            hint="write for example 'energy:0.9'",
        )
