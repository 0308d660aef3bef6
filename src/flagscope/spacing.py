"""Formats of stored floating-point numbers, and the distance of neighbouring ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class FloatFormat:
    """Bits of a binary floating-point format."""

    precision: int  # significant bits, the implicit one included
    smallest_exponent: int  # of normal numbers
    integer: torch.dtype  # of the same width
    exponent_mask: int


FLOAT_FORMATS = {
    torch.float64: FloatFormat(53, -1022, torch.int64, 0x7FF0000000000000),
    torch.float32: FloatFormat(24, -126, torch.int32, 0x7F800000),
    torch.bfloat16: FloatFormat(8, -126, torch.int16, 0x7F80),
    torch.float16: FloatFormat(11, -14, torch.int16, 0x7C00),
    torch.float8_e4m3fn: FloatFormat(4, -6, torch.uint8, 0x78),
    torch.float8_e4m3fnuz: FloatFormat(4, -7, torch.uint8, 0x78),
    torch.float8_e5m2: FloatFormat(3, -14, torch.uint8, 0x7C),
    torch.float8_e5m2fnuz: FloatFormat(3, -15, torch.uint8, 0x7C),
}
"""The formats whose spacing is known."""


def spacing(weight: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"] | None:
    """Distance of neighbouring stored numbers at each entry: ulp(w), of subnormals and 0 the least.

    Parameters
    ----------
    weight
        In the type in which it is *stored*.

    Returns
    -------
    Tensor or None
        float64, NaN or infinite where the entry is. None for types that are not floating point.

    References
    ----------
    N. J. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 2.1.

    Examples
    --------
    >>> spacing(torch.tensor([1.0, 3.0], dtype=torch.bfloat16)).tolist()
    [0.0078125, 0.015625]
    """
    form = FLOAT_FORMATS.get(weight.dtype)
    if form is None:
        return None
    return powers_of_two(weight, form).to(torch.float64) * 2.0 ** (1 - form.precision)


def powers_of_two(weight: Float[Tensor, "*shape"], form: FloatFormat) -> Float[Tensor, "*shape"]:
    """2^max(e, e_min) of each entry as a new tensor, NaN where the entry is.

    Parameters
    ----------
    weight
        In the type of the format.
    form
        The format.

    Returns
    -------
    Tensor
        float32; float64 for float64, whose exponents alone float32 does not hold.
    """
    # NaN and infinity mask to infinity, except in the float8 formats that have no infinity.
    power = (weight.view(form.integer) & form.exponent_mask).view(weight.dtype)
    if weight.dtype != torch.float64:
        power = power.to(torch.float32)
    if weight.element_size() == 1:
        power.add_(weight.to(torch.float32), alpha=0.0)
    return power.clamp_min_(2.0**form.smallest_exponent)
