"""Rounding noise of stored weights: how large a singular value must be to mean anything."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.errors import InputError, UnknownDtypeError
from flagscope.null.repetition import few_values, group_sums, line_keys
from flagscope.spacing import FLOAT_FORMATS, FloatFormat, powers_of_two, spacing

# Elements widened at a time: a few temporaries of 1 MiB in float32, which stay in a core's cache.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class StorageNoise:
    """Rounding noise of a stored matrix, or of a batch of them.

    Attributes
    ----------
    delta
        Estimate of the spectral norm of the rounding error, shape (...), float64. It is a little
        large where the errors of different entries, or of different rows and columns, are
        independent. It knows nothing of a coarser rounding in the past.
    mean_square
        Mean variance of the rounding error of one entry, shape (...), float64. Its root is the
        entry-wise noise standard deviation.
    repeated
        Whether values repeat more often than numbers of a continuous law, other than by equal rows
        and columns: δ may then be too small. Bool, of the batch's shape, or one for all.
    """

    delta: Float[Tensor, "*batch"]
    mean_square: Float[Tensor, "*batch"]
    repeated: Bool[Tensor, "*batch"] = field(
        default_factory=lambda: torch.zeros((), dtype=torch.bool)
    )


def storage_noise(
    weight: Float[Tensor, "*batch m n"], *, scale: float | Tensor = 1.0
) -> StorageNoise:
    """Rounding noise of a matrix from the spacing of its stored format.

    An entry w rounded to p significant bits carries an error of variance S = ulp(w)²/12 with
    ulp(w) = 2^{max(e, e_min) - (p - 1)} for 2^e ≤ |w| < 2^{e+1}. If errors are independent, the
    spectral norm of their matrix is about δ = max_i √(Σ_j S_ij) + max_j √(Σ_i S_ij) or less. Rows
    that are equal up to sign have equal errors: they count as one whose Σ_j S_ij is the sum of
    theirs, and columns likewise.

    Parameters
    ----------
    weight
        Matrix in the dtype in which it is *stored*: float64, float32, bfloat16, float16 or a
        float8. Widening first would lose what is measured here.
    scale
        Factor by which the stored numbers are multiplied, for scaled float8; a number or a tensor
        that broadcasts against `weight`.

    Returns
    -------
    StorageNoise
        All fields have the batch shape of `weight`.

    Raises
    ------
    InputError
        If `weight` has fewer than two dimensions, is empty, or holds NaN or infinity.
    UnknownDtypeError
        If its dtype is not a floating-point format listed above.

    Notes
    -----
    Reads the exponent bits in blocks of rows, 1 to 2 ns an entry (float8: 20), with temporaries of
    a few MiB whatever the size. Equal lines are looked for in 32 entries of each, and in all of
    them, 5 ns an entry, only where there are some. δ is right to 1e-6 as a number.

    As an estimate, the true spectral norm of the error was 0.47 to 0.97 of it for independent
    entries, and 0.3 to 0.85 for constant matrices, equal rows, copies of a block next to each other
    and blocks of one value. `repeated` is set where values repeat otherwise, by what a sample of
    4096 entries has: ternary or gridded values (true up to 8 δ where all have one sign), Toeplitz
    and circulant matrices (up to 1.5 δ; float8 has too few numbers for them to be noticed), and
    numbers that had been rounded to a shorter format, of which δ knows nothing.

    References
    ----------
    R. Latała, "Some estimates of norms of random matrices", Proc. AMS 133 (2005) 1273-1282;
    A. Bandeira and R. van Handel, Ann. Probab. 44 (2016) 2479-2506, theorem 1.1: the norm of a
    matrix of independent entries is governed by the largest row and column norms of its variances.

    Examples
    --------
    >>> noise = storage_noise(torch.ones(4, 4, dtype=torch.bfloat16))
    >>> round(noise.mean_square.item() / (2.0**-14 / 12), 12)
    1.0
    """
    form = FLOAT_FORMATS.get(weight.dtype)
    if form is None:
        raise _unknown(weight.dtype)
    if weight.ndim < 2 or weight.numel() == 0:
        raise InputError(
            f"weight must be a non-empty matrix or batch of them, got shape {tuple(weight.shape)}",
            hint="pass (m, n) or (..., m, n)",
        )
    factor = torch.as_tensor(scale, dtype=torch.float32, device=weight.device).abs()
    unit = 2.0 ** (1 - form.precision) / 12.0**0.5
    if factor.ndim == 0:
        # One factor for all costs nothing at the end.
        unit, factor = unit * factor.item(), None
    else:
        try:
            factor = factor.expand(weight.shape)
        except RuntimeError as error:
            raise InputError(
                f"scale of shape {tuple(factor.shape)} does not broadcast against weight of shape "
                f"{tuple(weight.shape)}",
                hint="expand block-wise scales to the shape of the weight",
            ) from error
    rows, columns, mean, repeated = _power_norms(weight, form, factor)
    delta = unit * (rows + columns)
    if not bool(torch.isfinite(delta).all()):
        raise InputError(
            "weight (or scale) holds NaN or infinity",
            hint="check torch.isfinite(weight).all() and leave such matrices out",
        )
    return StorageNoise(delta, unit**2 * mean, repeated)


def grid_noise(step: Float[Tensor, "*batch m n"]) -> StorageNoise:
    """Rounding noise of a matrix whose entries were rounded to a grid of known spacing.

    As `storage_noise`, with step²/12 for the variance of an entry's error: for formats of blocks
    of integers under a common scale, whose spacing does not depend on the entry. δ is that of
    independent errors: the values are not seen, so rows that are equal are not found.

    Parameters
    ----------
    step
        Spacing of the grid of each entry, floating point.

    Raises
    ------
    InputError
        If `step` has fewer than two dimensions, is empty, or holds NaN or infinity.

    References
    ----------
    B. Widrow and I. Kollár, "Quantization Noise" (2008), chapter 4: the variance step²/12.

    Examples
    --------
    >>> noise = grid_noise(torch.full((3, 12), 0.5))
    >>> round(float(noise.mean_square), 6), round(float(noise.delta), 6)
    (0.020833, 0.75)
    """
    if step.ndim < 2 or step.numel() == 0 or not step.is_floating_point():
        raise InputError(
            f"step must be a non-empty matrix or batch of them, got {step.dtype} of shape "
            f"{tuple(step.shape)}",
            hint="pass (m, n) or (..., m, n)",
        )
    *batch, m, n = step.shape
    rows = torch.empty((*batch, m), dtype=torch.float64, device=step.device)
    columns = torch.zeros((*batch, n), dtype=torch.float64, device=step.device)
    span = max(1, _BLOCK // (step.numel() // m))
    for start in range(0, m, span):
        variance = step[..., start : start + span, :].to(torch.float64).square() / 12
        rows[..., start : start + span] = variance.sum(-1)
        columns += variance.sum(-2)
    mean = rows.sum(-1) / (m * n)
    if not bool(torch.isfinite(mean).all()):
        raise InputError(
            "step holds NaN or infinity",
            hint="check torch.isfinite(step).all() and leave such matrices out",
        )
    delta = rows.amax(-1).sqrt() + columns.amax(-1).sqrt()
    return StorageNoise(delta, mean, torch.zeros_like(mean, dtype=torch.bool))


def row_noise(
    weight: Float[Tensor, "*batch m n"], *, scale: float | Tensor = 1.0
) -> Float[Tensor, "*batch m"]:
    """Mean variance of the rounding errors of the entries of each row, as `storage_noise` has it.

    Parameters
    ----------
    weight, scale
        As for `storage_noise`; not empty, and of a format that it knows.

    Returns
    -------
    Tensor
        float64; NaN or infinite where the row is not finite.

    Raises
    ------
    UnknownDtypeError
        If there is no rounding model for the stored type.

    Examples
    --------
    >>> weight = torch.tensor([[1.0, 1.0], [4.0, 4.0]], dtype=torch.bfloat16)
    >>> (row_noise(weight) / (2.0**-14 / 12)).round(decimals=12).tolist()
    [1.0, 16.0]
    """
    step = spacing(weight)
    if step is None:
        raise _unknown(weight.dtype)
    if isinstance(scale, Tensor) or scale != 1.0:
        step = step * torch.as_tensor(scale, device=weight.device).double()
    return step.mul_(1 / 12.0**0.5).square_().mean(-1)


def _unknown(dtype: torch.dtype) -> UnknownDtypeError:
    return UnknownDtypeError(
        f"no rounding model for the stored type {dtype}",
        hint=f"known types: {', '.join(str(dtype) for dtype in FLOAT_FORMATS)}",
    )


def _power_norms(
    weight: Tensor, form: FloatFormat, factor: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Largest row norm, largest column norm and mean square of the entries' powers of two.

    Equal rows and columns count as one; and whether values repeat otherwise.
    """
    if weight.ndim > 2 and weight.numel() > _BLOCK:
        factors = [None] * len(weight) if factor is None else factor.unbind(0)
        parts = [_power_norms(w, form, f) for w, f in zip(weight.unbind(0), factors, strict=True)]
        rows, columns, mean, repeated = (torch.stack(part) for part in zip(*parts, strict=True))
        return rows, columns, mean, repeated
    *batch, m, n = weight.shape
    step = max(1, _BLOCK // (weight.numel() // m))
    spans = [slice(start, start + step) for start in range(0, m, step)]

    def powers(span: slice) -> Tensor:
        power = powers_of_two(weight[..., span, :], form)
        return power if factor is None else power.mul_(factor[..., span, :])

    # Squares of powers of two leave the range of float32, so all is relative to the largest.
    if factor is None:
        # Exponents in their bits have the order of the powers.
        bits = weight.view(form.integer)
        top = torch.stack([(bits[..., s, :] & form.exponent_mask).amax((-2, -1)) for s in spans])
        largest = powers_of_two(top.amax(0).view(weight.dtype), form)
    else:
        largest = torch.stack([powers(span).amax((-2, -1)) for span in spans]).amax(0)
    inverse = largest.reciprocal()[..., None, None]
    total = torch.zeros((*batch, n), dtype=torch.float64, device=weight.device)
    norms = []
    for span in spans:
        # In float32 each sum is right to 1e-6, and the blocks are added in float64.
        square = powers(span).mul_(inverse).square_()
        total += square.sum(-2)
        norms.append(square.sum(-1).to(torch.float64))
    rows = torch.cat(norms, dim=-1)
    mean = rows.sum(-1) / (m * n)
    # A single map only gets an axis; a batch, which may be copied, is small here.
    bits = weight.view(form.integer).reshape(-1, m, n)
    rows, one_a_row = _merged(bits, -1, rows.reshape(-1, m))
    total, one_a_column = _merged(bits, -2, total.reshape(-1, n))
    repeated = few_values(bits, one_a_row, one_a_column, mantissa=form.precision - 1)
    largest = largest.to(torch.float64)
    return (
        largest * rows.amax(-1).sqrt().reshape(batch),
        largest * total.amax(-1).sqrt().reshape(batch),
        largest**2 * mean,
        repeated.reshape(batch),
    )


def _merged(bits: Tensor, axis: int, sums: Tensor) -> tuple[Tensor, Tensor]:
    """The lines' sums with those of equal lines added up, and one line of each kind."""
    keys = line_keys(bits, axis)
    if keys is None:
        return sums, torch.ones_like(sums, dtype=torch.bool)
    return group_sums(keys, sums)
