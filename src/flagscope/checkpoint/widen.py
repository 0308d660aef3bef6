"""Exact widening of stored weights to the data type that the mathematics runs in."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from flagscope.checkpoint.dtypes import dtype_name
from flagscope.errors import InputError, UnknownDtypeError

# Source types whose every value float32 holds: at most 24 significant bits, and exponents within
# float32's range (float8_e8m0fnu reaches down to 2^-127, which float32 holds as a subnormal).
_EXACT_IN_FLOAT32 = {
    *("float32", "float16", "bfloat16"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("int16", "int8", "uint16", "uint8", "bool"),
}
# float64 has 53 significant bits; 64-bit integers do not fit.
_EXACT_IN_FLOAT64 = {*_EXACT_IN_FLOAT32, "float64", "int32", "uint32"}
_EXACT = {torch.float32: _EXACT_IN_FLOAT32, torch.float64: _EXACT_IN_FLOAT64}


def widen(
    tensor: Shaped[Tensor, "*shape"],
    dtype: torch.dtype = torch.float64,
    *,
    scale: Float[Tensor, "*scale"] | float | None = None,
) -> Float[Tensor, "*shape"]:
    """Stored weights in a wider floating type, every value unchanged.

    Parameters
    ----------
    tensor
        Weights as stored: floating types of 8 to 64 bits, small integers, booleans. NaN and
        infinity stay what they are.
    dtype
        `torch.float64` or `torch.float32`.
    scale
        Factor of a scaled format (float8, int8): a number, a tensor of one element, or a tensor
        with as many axes as `tensor` that broadcasts against it, such as (rows, 1). The product
        is formed in `dtype`: exact in float64 for float8 times a float32 scale, rounded to
        2^-24 relative in float32.

    Returns
    -------
    Tensor
        On the device of `tensor`; `tensor` itself if there is nothing to do.

    Raises
    ------
    InputError
        If `dtype` is neither type or is too narrow for the values, or `scale` does not fit.
    UnknownDtypeError
        If float64 cannot hold the type's values: complex, 64-bit integers, packed types.

    References
    ----------
    Micikevicius et al., "FP8 formats for deep learning", arXiv 2209.05433, table 1.

    Examples
    --------
    >>> import torch
    >>> widen(torch.tensor([0.1], dtype=torch.float16)).item()
    0.0999755859375
    """
    if dtype not in _EXACT:
        raise InputError(
            f"dtype must be torch.float64 or torch.float32, got {dtype}.",
            hint="the default, torch.float64, holds every supported type.",
        )
    stored = dtype_name(tensor.dtype)
    if stored not in _EXACT_IN_FLOAT64:
        raise UnknownDtypeError(
            f"values of type {stored} cannot be widened to float64 exactly.",
            hint="convert the tensor to a real floating type of at most 64 bits first.",
        )
    if stored not in _EXACT[dtype]:
        raise InputError(
            f"values of type {stored} do not fit {dtype_name(dtype)}.",
            hint="widen to torch.float64.",
        )
    wide = tensor.to(dtype)
    return wide if scale is None else wide * _fitting_scale(scale, wide)


def _fitting_scale(scale: Tensor | float, wide: Tensor) -> Tensor:
    factor = torch.as_tensor(scale, device=wide.device)
    if dtype_name(factor.dtype) not in _EXACT_IN_FLOAT64:
        raise InputError(
            f"scale has type {dtype_name(factor.dtype)}.", hint="give it as float32 or float64."
        )
    factor = factor.to(wide.dtype)
    if factor.numel() == 1:
        return factor.reshape(())
    # One axis fewer would broadcast along the wrong axis of a square matrix without a word.
    fits = factor.ndim == wide.ndim and all(
        mine in (1, theirs) for mine, theirs in zip(factor.shape, wide.shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"scale of shape {tuple(factor.shape)} does not fit a tensor of shape "
            f"{tuple(wide.shape)}.",
            hint="give one factor, or a tensor with as many axes, each of size 1 or the tensor's; "
            "repeat the factors of a block format first.",
        )
    return factor
